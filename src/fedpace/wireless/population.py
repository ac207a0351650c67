"""Populations: devices and links drawn from a described cell.

A `Scenario` says how fast the devices are and where they are; `draw_clients` draws N of them.
Users are uniform in a disc around the base station, their signal falls with distance and
log-normal shadowing, their computation times are log-normal within device classes. The presets
are in `SCENARIOS`; `dataclasses.replace` makes a variant of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from fedpace.core.arguments import COUNT, NUMBER, NUMBERS, check_fields, takes
from fedpace.core.errors import InputError
from fedpace.core.profile import Clients, Floats, System
from fedpace.core.rng import rng_for
from fedpace.wireless.channel import rate_bps, received_snr_hz, uplink
from fedpace.wireless.latency import upload_bits

__all__ = [
    "SCENARIOS",
    "Scenario",
    "draw_clients",
    "scenario_named",
    "upload_compute_ratio",
    "with_newcomers",
]

_MIN_DISTANCE_KM = 0.035  # 3GPP TR 36.814, between user and macro base station
_EFFICIENCY_RANGE = (0.1523, 5.5547)  # bit/s/Hz, CQI 1 to 15 of 3GPP TS 36.213 table 7.2.3-1

_GPU_STEP_SECONDS = {  # QVAC Fabric's docs/BENCHMARKS.md, "Fine-tuning Completion Time", Q8_0
    "RTX 4090": 1.1,
    "RX 7900 XTX": 2.7,
    "Arc A770": 4.3,
    "M3 Pro": 7.3,
    "Adreno 830": 21.0,
    "iPhone 16": 21.0,
    "Mali G715": 100.0,
}
"""A step of 128 tokens: Qwen3-1.7B, Q8_0, LoRA on q, k, v, o, gate, up and down, s."""
_USER_UPLINKS_BPS = (431e3, 2703e3, 3286e3, 5038e3, 6635e3)
"""Least, quartiles and greatest of the mean uplinks of 19 users: models/speed_distri.json of FLASH
(Yang et al., WWW 2021; BSD-2), whose unit is read as kbit/s."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A cell and its devices. SI units; decibels only where a radio engineer would say them."""

    name: str
    bandwidth_hz: float = 20e6
    """W for the `System` of this scenario, Hz. `draw_clients` uses the one in its system."""
    cell_radius_km: float = 2.0
    shadowing_db: float = 8.0
    """Standard deviation of the log-normal shadowing, dB."""
    tx_power_dbm: float = 23.0
    noise_dbm_per_hz: float = -174.0
    link: Literal["constant", "shannon"] = "constant"
    """Whether the clients get a `spectral_efficiency` or an `snr_hz`."""
    share_hz: float = 1e6
    """Bandwidth at which a link's efficiency is log2(1 + snr_hz / share_hz), Hz."""
    uplink_bps: tuple[float, ...] | None = None
    """In place of the cell: each client has an uplink of its own, a limit, and what they share is
    the band at 1 bit/s/Hz, the server's line. Least to greatest rate at shares of the clients that
    are evenly spaced, linear between, bit/s."""
    device_step_seconds: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    """Device classes, equally frequent: range of a full-rank local step, uniform within, s."""
    step_spread: float = 1.0
    """Standard deviation of ln(step time) on top of the class."""
    rank_share: float = 0.1
    """Part of a full-rank local step that is proportional to the rank, in [0, 1]."""
    upload_compute_ratio: float | None = 1.0
    """Scale all step times so that `upload_compute_ratio` is this; None: leave them."""
    ratio_cohort: float = 5.0
    """How many clients share the band equally where that ratio holds, at least 1."""
    size_slowness_correlation: float = 0.0
    """In [-1, 1]; above 0, clients with much data compute and send slowly."""
    small_memory_share: float = 0.0
    """Share of clients whose memory holds a quarter of the ranks, in [0, 1]."""

    def __post_init__(self) -> None:
        check_fields(self, name=str)
        for name, low, high in _LIMITS:
            value = getattr(self, name)
            if value is not None:
                check_fields(self, **{name: NUMBER})
            if value is not None and not low <= value <= high:
                raise InputError(
                    f"scenario {self.name!r}: {name} is {value!r}; "
                    f"it must be from {low:g} to {high:g}"
                )
        if self.link not in ("constant", "shannon"):
            raise InputError(
                f"scenario {self.name!r}: link is {self.link!r}; choose 'constant' or 'shannon'"
            )
        if self.uplink_bps is not None and not (
            len(self.uplink_bps) > 1
            and all(_TINY <= low <= high <= _HUGE for low, high in pairwise(self.uplink_bps))
        ):
            raise InputError(
                f"scenario {self.name!r}: uplink_bps is {self.uplink_bps!r}; give two rates or "
                "more, ascending, above 0"
            )
        if self.uplink_bps is not None and self.link != "constant":
            raise InputError(
                f"scenario {self.name!r}: uplink_bps with link = {self.link!r}; set 'constant', "
                "where a limit of the bandwidth is one of the rate"
            )
        if not self.device_step_seconds or not all(
            0 < low <= high < np.inf for low, high in self.device_step_seconds
        ):
            raise InputError(
                f"scenario {self.name!r}: device_step_seconds is {self.device_step_seconds!r}; "
                "give one (shortest, longest) pair of seconds above 0 for each device class"
            )


_TINY, _HUGE = 1e-12, 1e15
_LIMITS = (
    ("bandwidth_hz", _TINY, _HUGE),
    ("cell_radius_km", _MIN_DISTANCE_KM, 1e4),
    ("shadowing_db", 0, 100),
    ("tx_power_dbm", -200, 200),
    ("noise_dbm_per_hz", -300, 0),
    ("share_hz", _TINY, _HUGE),
    ("step_spread", 0, 10),
    ("rank_share", 0, 1),
    ("upload_compute_ratio", _TINY, _HUGE),
    ("ratio_cohort", 1, _HUGE),
    ("size_slowness_correlation", -1, 1),
    ("small_memory_share", 0, 1),
)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("cell-balanced"),
        Scenario("cell-compute-bound", upload_compute_ratio=0.3),
        Scenario("cell-link-bound", upload_compute_ratio=3.0),
        Scenario("cell-mild", cell_radius_km=1.0, shadowing_db=4.0, step_spread=0.3),
        # Gemma-3-270M, LoRA on q, k, v, o, batch 8, sequence 64: means by device of section 6.1 of
        # EdgeFlowerTune's docs/original/current_system_and_device_profile_20260421.md.
        Scenario(
            "phones-and-nanos",
            bandwidth_hz=1.4e6,
            device_step_seconds=((170.0, 174.0), (11.4, 14.1)),
            step_spread=0.0,
            upload_compute_ratio=None,
        ),
        # The server's line of 100 Mbit/s is ours: 30 of these uplinks at once fill it.
        Scenario("own-uplinks", bandwidth_hz=100e6, uplink_bps=_USER_UPLINKS_BPS),
        Scenario(
            "pc-to-phone",
            bandwidth_hz=100e6,
            uplink_bps=_USER_UPLINKS_BPS,
            device_step_seconds=tuple((s, s) for s in _GPU_STEP_SECONDS.values()),
            step_spread=0.0,
            upload_compute_ratio=None,
        ),
    )
}
"""The presets by name."""


def scenario_named(name: str) -> Scenario:
    """Return a preset.

    Raises:
        InputError: there is none of that name; the message lists them.

    Example:
        >>> scenario_named("cell-mild").step_spread
        0.3
    """
    if name not in SCENARIOS:
        raise InputError(f"scenario {name!r} is unknown; choose one of {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


@takes(scenario=Scenario, data_weight=NUMBERS, seed=COUNT, system=System)
def draw_clients(
    scenario: Scenario,
    data_weight: ArrayLike,
    seed: int,
    system: System,
    *,
    client_id: Sequence[str] | NDArray[np.str_] | None = None,
) -> Clients:
    """Draw one client for each data weight.

    Distances are those of points uniform in the disc, at least 35 m from the mast. A link's
    efficiency at `share_hz` is kept within what the LTE uplink offers, 0.1523 to 5.5547 bit/s/Hz:
    a weaker client would not be admitted, a stronger one finds no higher modulation. With
    `uplink_bps` every efficiency is 1 bit/s/Hz, and a client's rate is its `max_bandwidth_hz`.

    With `size_slowness_correlation` c the step times and the links, each for itself, are dealt out
    in the order of c z + sqrt(1 - c^2) z', z the normal scores of the data weights (ties in random
    order), z' fresh normal noise: who gets which time changes, the times drawn do not.

    With `upload_compute_ratio` set, step times (not the links, nor the band) are multiplied by one
    common factor so that the function of that name gives it for `ratio_cohort` clients that share
    the band: how fast the devices are does not depend on how many there are.

    Args:
        scenario: the cell and its devices.
        data_weight: relative amount of data, shape (N,).
        seed: of the streams "population".
        system: gives W, r, H and the message sizes.
        client_id: names, shape (N,); by default "0", "1", ...

    Returns:
        N clients.
    """
    weight = np.atleast_1d(np.asarray(data_weight, dtype=np.float64))
    count = len(weight)
    draws = [rng_for(seed, "population", purpose) for purpose in range(6)]

    inner, outer = _MIN_DISTANCE_KM**2, scenario.cell_radius_km**2
    distance_km = np.sqrt(inner + draws[0].random(count) * (outer - inner))
    snr_hz = received_snr_hz(
        distance_km,
        scenario.shadowing_db * draws[1].standard_normal(count),
        tx_power_dbm=scenario.tx_power_dbm,
        noise_dbm_per_hz=scenario.noise_dbm_per_hz,
    )
    efficiency = np.clip(np.log2(1 + snr_hz / scenario.share_hz), *_EFFICIENCY_RANGE)
    limit = np.full(count, np.inf)
    if scenario.uplink_bps is not None:
        efficiency, place = np.ones(count), draws[0].random(count)
        limit = np.interp(place, np.linspace(0, 1, len(scenario.uplink_bps)), scenario.uplink_bps)

    low, high = np.transpose(scenario.device_step_seconds)
    device = draws[2].integers(len(low), size=count)
    step = low[device] + draws[2].random(count) * (high - low)[device]
    step = step * np.exp(scenario.step_spread * draws[3].standard_normal(count))

    correlation = scenario.size_slowness_correlation
    if correlation != 0:
        step = _in_order(step, weight, correlation, draws[4])
        efficiency = -_in_order(-efficiency, weight, correlation, draws[4])
        limit = -_in_order(-limit, weight, correlation, draws[4])
    small = draws[5].random(count) < scenario.small_memory_share
    link = {"spectral_efficiency": efficiency}
    if scenario.link == "shannon":
        link = {"snr_hz": scenario.share_hz * (2.0**efficiency - 1)}
    ids = {} if client_id is None else {"client_id": client_id}
    clients = Clients.from_columns(
        data_weight=weight,
        step_seconds=step * (1 - scenario.rank_share),
        step_seconds_per_rank=step * scenario.rank_share / system.lora_rank,
        max_rank=np.where(small, max(1, system.lora_rank // 4), np.inf),
        max_bandwidth_hz=limit,
        **link,
        **ids,
    )
    if scenario.upload_compute_ratio is None:
        return clients
    ratio = upload_compute_ratio(clients, system, scenario.ratio_cohort)
    factor = ratio / scenario.upload_compute_ratio
    return replace(
        clients,
        step_seconds=_frozen(clients.step_seconds * factor),
        step_seconds_per_rank=_frozen(clients.step_seconds_per_rank * factor),
    )


def with_newcomers(clients: Clients, client_id: Sequence[str], data_weight: ArrayLike) -> Clients:
    """Add clients of whom nothing is known: each has the median of every column.

    Args:
        clients: known, N of them; they keep their positions and all but their data weight.
        client_id: names of the M new ones.
        data_weight: relative amount of data of all, shape (N + M,).

    Example:
        >>> clients = Clients.from_columns(
        ...     data_weight=[1, 1, 1], step_seconds=[1, 2, 9], spectral_efficiency=[1, 1, 4])
        >>> with_newcomers(clients, ["new"], [1, 1, 1, 2]).step_seconds.tolist()
        [1.0, 2.0, 9.0, 2.0]
    """
    columns = {
        name: np.append(column, np.full(len(client_id), np.median(column)))
        for name, column in clients.columns().items()
        if name not in ("client_id", "data_weight")
    }
    names = [*clients.client_id.tolist(), *client_id]
    return Clients.from_columns(client_id=names, data_weight=data_weight, **columns)


def upload_compute_ratio(clients: Clients, system: System, cohort: float = 5.0) -> float:
    """Whether the links or the devices dominate: mean upload time over mean computation time.

    Both at full rank. A client's upload time is the one it has when a cohort of M shares the band
    equally, d(r) / R_n(W / M), or at its own limit; for links of constant efficiency without limits
    the mean is M mean(t_n) / W, the time the band needs for the cohort. Computation is
    H (step_seconds + r step_seconds_per_rank), without the download.

    Args:
        clients: N clients.
        system: gives W, r, H and the message sizes.
        cohort: M, clients that share the band, at least 1.

    Returns:
        The ratio; 1 is balanced, above 1 link-bound.
    """
    share_hz = np.minimum(system.bandwidth_hz / cohort, clients.max_bandwidth_hz)
    bits = upload_bits(system, system.lora_rank)
    upload = bits / rate_bps(share_hz, **uplink(clients))
    step = clients.step_seconds + system.lora_rank * clients.step_seconds_per_rank
    return float(np.mean(upload) / (system.local_steps * np.mean(step)))


def _in_order(
    values: Floats, weight: Floats, correlation: float, rng: np.random.Generator
) -> Floats:
    """Deal the values out so that large ones tend to go where the weight is large."""
    count = len(values)
    ranks = np.empty(count, dtype=np.int64)
    ranks[np.lexsort((rng.random(count), weight))] = np.arange(count)
    score = correlation * ndtri((ranks + 0.5) / count)
    score += np.sqrt(1 - correlation**2) * rng.standard_normal(count)
    dealt = np.empty(count)
    dealt[np.argsort(score, kind="stable")] = np.sort(values)
    return dealt


def _frozen(array: Floats) -> Floats:
    array.setflags(write=False)
    return array
