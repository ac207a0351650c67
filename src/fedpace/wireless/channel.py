r"""One uplink: rate for a bandwidth, bandwidth for a rate, path loss, and fading.

What a link is, its model says (`links`). Decibels appear only in `path_loss_db` and
`received_snr_hz`, the door.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fedpace.core.errors import InputError
from fedpace.core.profile import Clients, Floats
from fedpace.core.rng import rng_for
from fedpace.wireless.links import GAIN_FLOOR, LINKS, Link

__all__ = [
    "GAIN_FLOOR",
    "bandwidth_for_rate",
    "bandwidth_slope",
    "faded",
    "fading_gains",
    "mean_faded",
    "model_of",
    "one_link",
    "path_loss_db",
    "rate_bps",
    "received_snr_hz",
    "uplink",
]


def rate_bps(bandwidth_hz: ArrayLike, **link: ArrayLike | None) -> Floats:
    r"""Rate of a link: e b, or b log2(1 + snr_hz / b).

    Args:
        bandwidth_hz: b >= 0, Hz; any shape, broadcast against the link. May be infinite.
        **link: the description of the links, one column by its name in `links.LINKS`:
            ``spectral_efficiency``, bit/s/Hz, or ``snr_hz``, P g / N0, Hz.

    Returns:
        The rate, bit/s.

    Example:
        >>> float(rate_bps(1e6, snr_hz=3e6))
        2000000.0
    """
    _, model, value = one_link(link)
    return model.rate_bps(np.asarray(bandwidth_hz, dtype=np.float64), value)


def bandwidth_for_rate(rate_bps: ArrayLike, **link: ArrayLike | None) -> Floats:
    r"""Bandwidth that gives a rate: the inverse of `rate_bps`.

    Relative error below 1e-13 for rates from 1e-6 to 1 - 1e-9 of the limit; see `shannon`.

    Args:
        rate_bps: >= 0, bit/s; any shape, broadcast against the link.
        **link: as for `rate_bps`.

    Returns:
        b, Hz; infinite where a link cannot give the rate at any bandwidth (Shannon:
        rate >= snr_hz / ln 2).

    Example:
        >>> bandwidth_for_rate([2e6, 5e6], snr_hz=3e6).round(3).tolist()
        [1000000.0, inf]
    """
    _, model, value = one_link(link)
    return model.bandwidth_for_rate(np.asarray(rate_bps, dtype=np.float64), value)


def bandwidth_slope(rate_bps: ArrayLike, **link: ArrayLike | None) -> Floats:
    """Derivative of `bandwidth_for_rate` in the rate.

    Args:
        rate_bps: as for `bandwidth_for_rate`.
        **link: as for `rate_bps`.

    Returns:
        d b / d rate, Hz per bit/s: 1/e, or 1 / (log2(1 + x) - x / ((1 + x) ln 2)) with
        x = snr_hz / b; infinite where the bandwidth is, 0 at rate 0 of a Shannon link.
    """
    _, model, value = one_link(link)
    return model.bandwidth_slope(np.asarray(rate_bps, dtype=np.float64), value)


def model_of(link: Mapping[str, Any]) -> Link:
    """Return the model of links that one column describes, as `uplink` returns it."""
    (name,) = link
    return LINKS[name]


def path_loss_db(distance_km: ArrayLike) -> Floats:
    """Path loss of an urban macro cell at 2 GHz: 128.1 + 37.6 log10(d), dB (3GPP TR 36.814).

    Args:
        distance_km: d > 0, km.
    """
    return 128.1 + 37.6 * np.log10(np.asarray(distance_km, dtype=np.float64))


def received_snr_hz(
    distance_km: ArrayLike,
    shadowing_db: ArrayLike = 0.0,
    *,
    tx_power_dbm: float = 23.0,
    noise_dbm_per_hz: float = -174.0,
) -> Floats:
    """Signal power over noise density at the base station, P g / N0.

    Args:
        distance_km: from the base station, km.
        shadowing_db: loss besides the path's, dB.
        tx_power_dbm: of the client, dBm.
        noise_dbm_per_hz: noise density, dBm/Hz.

    Returns:
        Hz, linear scale.
    """
    loss = path_loss_db(distance_km) + np.asarray(shadowing_db, dtype=np.float64)
    return np.power(10.0, (tx_power_dbm - noise_dbm_per_hz - loss) / 10)


def uplink(clients: Clients, index: ArrayLike | slice = slice(None)) -> dict[str, Floats]:
    """Return the link of each client as the keyword argument of this room's functions.

    Args:
        clients: N clients.
        index: which of them; all by default.

    Example:
        >>> clients = Clients.from_columns(
        ...     data_weight=[1, 1], step_seconds=[1, 1], spectral_efficiency=[2, 4])
        >>> rate_bps(1e6, **uplink(clients, [1])).tolist()
        [4000000.0]
    """
    rows = index if isinstance(index, slice) else np.asarray(index, dtype=np.int64)
    name, value = clients.link
    return {name: value[rows]}


def fading_gains(seed: int, round_index: int, num_clients: int) -> Floats:
    """Draw the power gains of one round: Rayleigh block fading, mean 1, floored at `GAIN_FLOOR`.

    All N are drawn, so that a client's gain does not depend on who joins.

    Args:
        seed: the run's seed.
        round_index: 0, 1, 2, ...
        num_clients: N.

    Returns:
        g, shape (N,).
    """
    drawn = rng_for(seed, "fading", round_index).exponential(size=num_clients)
    return np.maximum(drawn, GAIN_FLOOR)


def faded(clients: Clients, gains: ArrayLike) -> Clients:
    """Return the clients as they are in a fading block.

    A gain g scales the signal: Shannon's snr_hz becomes g snr_hz, and a constant efficiency e,
    which stands for a signal-to-noise ratio 2^e - 1, becomes log2(1 + (2^e - 1) g).

    Args:
        clients: N clients.
        gains: g, shape (N,), above 0.

    Returns:
        The clients with those links; everything else as it was.
    """
    name, value = clients.link
    gain = np.asarray(gains, dtype=np.float64)
    return clients.with_link(name, LINKS[name].faded(value, gain))


def mean_faded(clients: Clients, share_hz: ArrayLike | None = None) -> Clients:
    r"""Return the clients with the links a planner should use where rounds fade.

    The link is the one whose demand t = bits / e equals the mean demand over fading:
    1/e = E[1/e'(g)] under the law of `fading_gains`. That is exact for constant efficiency. A
    Shannon link has no single demand, because its efficiency depends on its bandwidth: there the
    mean is taken at the bandwidth `share_hz`, that is with e = log2(1 + snr_hz / share_hz), and the
    result is the snr_hz that has the mean's efficiency at that share.

    Args:
        clients: N clients.
        share_hz: for Shannon links the bandwidth at which the two are matched, Hz, scalar or shape
            (N,): a typical share, the band over the expected number of participants.

    Returns:
        The clients with those links; everything else as it was.

    Raises:
        InputError: Shannon links and no `share_hz`.
    """
    name, value = clients.link
    if share_hz is None and not LINKS[name].proportional:
        raise InputError(
            f"the clients have links ({name}) whose efficiency depends on their bandwidth and "
            "share_hz is None; give the bandwidth of a typical participant, Hz"
        )
    share = np.asarray(1.0 if share_hz is None else share_hz, dtype=np.float64)
    return clients.with_link(name, LINKS[name].mean_faded(value, share))


def one_link(link: Mapping[str, ArrayLike | None]) -> tuple[str, Link, Floats]:
    """Return the one column that is given, by name, its model and its values.

    Raises:
        InputError: none is given, several, or one without a model.
    """
    given = [name for name, value in link.items() if value is not None]
    if len(given) != 1 or given[0] not in LINKS:
        found = ("both" if set(given) == set(LINKS) else ", ".join(given)) or "neither"
        raise InputError(f"a link needs {' or '.join(LINKS)}, one of them; got {found}")
    return given[0], LINKS[given[0]], np.asarray(link[given[0]], dtype=np.float64)
