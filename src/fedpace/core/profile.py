"""What the planner knows: the clients and the system they share. SI units, linear scale."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpace.core.arguments import NUMBER, check_fields
from fedpace.core.errors import InputError
from fedpace.core.sketch import RESIDUAL, Sketch
from fedpace.core.text_files import shortened

Floats = NDArray[np.float64]

LEAST, MOST = 1e-30, 1e30
"""Numbers beyond these, in any unit here, are mistakes; within them no product overflows."""


AllocationRule = Literal["work-conserving", "equal-finish", "equal-share"]
"""How the uplink is divided among the participants of a round; see
`fedpace.wireless.bandwidth.allocate_bandwidth`."""
DEFAULT_ALLOCATION: AllocationRule = "work-conserving"
"""The band never idles: the one default of Python, files and command line."""

LINK_COLUMNS = ("spectral_efficiency", "snr_hz")
"""Columns that describe links, one for each model of `fedpace.wireless.links`."""


@dataclass(frozen=True, slots=True)
class ClientProfile:
    """One client: a row of ``clients.csv``.

    Exactly one of `LINK_COLUMNS` describes the uplink.
    """

    client_id: str
    data_weight: float
    """Relative amount of data; `Clients` divides by the sum, which gives the paper's a_n."""
    step_seconds: float
    """One local step, the part that does not depend on the rank, s."""
    step_seconds_per_rank: float = 0.0
    """What one more rank component adds to a local step, s."""
    download_seconds: float = 0.0
    """Fixed delay before training starts, s; the system's downlink comes on top."""
    spectral_efficiency: float | None = None
    """Uplink at constant efficiency, bit/s/Hz."""
    snr_hz: float | None = None
    """Uplink by Shannon's formula: P g / N0, Hz; rate b log2(1 + snr_hz / b)."""
    max_bandwidth_hz: float = np.inf
    """Most uplink bandwidth this client can use, Hz."""
    max_rank: float = np.inf
    """Largest sketch rank that fits the client's memory, a whole number."""
    availability: float = 1.0
    """Probability that a client that is asked answers, in (0, 1]."""
    update_second_moment: float = 1.0
    """Gamma_n: mean squared norm of the client's full-rank update, any common unit."""
    step_joules: float = 0.0
    """Energy of one local step, J."""
    upload_joules_per_bit: float = 0.0
    """Energy of sending one bit, J."""
    max_joules_per_round: float = np.inf
    """Mean energy a round that the client allows, J; a round it sits out costs nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Clients:
    """N clients in columns, so that a million clients need no million objects.

    Every array has shape (N,). Build it with `Clients.from_columns` or `Clients.from_profiles`,
    which fill the optional columns and check every value. The arrays are read-only.
    """

    client_id: NDArray[np.str_]
    data_weight: Floats
    """a_n; sums to 1."""
    step_seconds: Floats
    step_seconds_per_rank: Floats
    download_seconds: Floats
    spectral_efficiency: Floats | None
    """bit/s/Hz, or None where `snr_hz` describes the links."""
    snr_hz: Floats | None
    max_bandwidth_hz: Floats
    max_rank: Floats
    availability: Floats
    update_second_moment: Floats
    step_joules: Floats
    upload_joules_per_bit: Floats
    max_joules_per_round: Floats

    def __len__(self) -> int:
        return len(self.data_weight)

    @property
    def link(self) -> tuple[str, Floats]:
        """The column that describes the links: its name, and its values, shape (N,)."""
        ((name, value),) = (
            (name, getattr(self, name)) for name in LINK_COLUMNS if getattr(self, name) is not None
        )
        return name, value

    def with_link(self, name: str, value: Floats) -> "Clients":
        """Return the clients with other values of the column that describes their links."""
        changed: dict[str, Any] = {name: value}
        return replace(self, **changed)

    @classmethod
    def from_columns(cls, **columns: ArrayLike) -> "Clients":
        """Build clients from columns.

        Args:
            **columns: arrays of shape (N,), by the names of `ClientProfile`. Required are
                ``data_weight``, ``step_seconds`` and one of ``spectral_efficiency`` and
                ``snr_hz``; ``client_id`` defaults to "0", "1", ...

        Returns:
            The clients, with `data_weight` divided by its sum.

        Raises:
            InputError: an unknown or missing column, unequal lengths, or a value out of range;
                the message names the column and the client.

        Example:
            >>> clients = Clients.from_columns(
            ...     data_weight=[3, 1], step_seconds=[0.1, 0.4], spectral_efficiency=[2.0, 0.5])
            >>> clients.data_weight.tolist()
            [0.75, 0.25]
        """
        known = [f.name for f in fields(ClientProfile)]
        if unknown := sorted(set(columns) - set(known)):
            raise InputError(
                f"unknown client column {shortened(unknown[0])}; known are {', '.join(known)}"
            )
        for name in ("data_weight", "step_seconds"):
            if name not in columns:
                raise InputError(f"client column {name!r} is missing; every client needs it")
        links = [n for n in LINK_COLUMNS if n in columns]
        if len(links) != 1:
            raise InputError(
                "the clients need exactly one link column, 'spectral_efficiency' (bit/s/Hz) or "
                f"'snr_hz' (Hz); found {' and '.join(links) or 'neither'}"
            )
        count = len(np.atleast_1d(np.asarray(columns["data_weight"])))
        if count == 0:
            raise InputError("there are no clients (N = 0); give at least one")
        ids = np.asarray(columns.pop("client_id", np.arange(count))).astype(np.str_)
        values: dict[str, Any] = {}
        for f in fields(ClientProfile)[1:]:
            if f.name in columns:
                values[f.name] = _column(f.name, columns[f.name], ids, count)
            elif f.name in LINK_COLUMNS:
                values[f.name] = None
            else:
                values[f.name] = np.full(count, f.default, dtype=np.float64)
        if len(ids) != count:
            raise InputError(f"client_id has {len(ids)} entries, data_weight {count}; match them")
        unique, first = np.unique(ids, return_index=True)
        if len(unique) != count:
            repeated = ids[np.setdiff1d(np.arange(count), first)[0]]
            raise InputError(
                f"client_id {shortened(str(repeated))} appears twice; give every client its own"
            )
        share = values["data_weight"] / values["data_weight"].sum()
        if np.any(small := share < LEAST):
            n = int(np.argmax(small))
            raise InputError(
                f"data_weight of client {shortened(str(ids[n]))} is {values['data_weight'][n]:g}, "
                f"a share of {share[n]:g} of all; drop the client, or correct the largest weights"
            )
        values["data_weight"] = share
        for array in (ids, *values.values()):
            if array is not None:
                array.setflags(write=False)
        return cls(client_id=ids, **values)

    @classmethod
    def from_profiles(cls, profiles: Sequence[ClientProfile]) -> "Clients":
        """Build clients from rows; see `from_columns` for the checks.

        Args:
            profiles: one row a client, all with the same kind of link.
        """
        if not isinstance(profiles, Sequence):
            raise InputError(
                f"profiles is {shortened(profiles)}; give a list of ClientProfile, one a client"
            )
        for n, profile in enumerate(profiles):
            if not isinstance(profile, ClientProfile):
                raise InputError(
                    f"client {n} is {profile!r}; give Clients, or a list of ClientProfile"
                )
        names = [f.name for f in fields(ClientProfile)]
        columns = {name: [getattr(p, name) for p in profiles] for name in names}
        for link in LINK_COLUMNS:
            if all(value is None for value in columns[link]):
                del columns[link]
            elif any(value is None for value in columns[link]):
                who = profiles[columns[link].index(None)].client_id
                raise InputError(
                    f"client {shortened(who)} has no {link}, others have; describe all links the "
                    "same way"
                )
        return cls.from_columns(**columns)

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """Return the columns that are set, by name; `from_columns(**columns())` is a copy."""
        every = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in every.items() if value is not None}

    def take(self, index: ArrayLike | Iterable[int]) -> "Clients":
        """Return the clients at `index`; their data weights are made to sum to 1 again."""
        rows = np.asarray(index)
        return Clients.from_columns(**{n: column[rows] for n, column in self.columns().items()})


_POSITIVE = {*LINK_COLUMNS, "data_weight", "max_bandwidth_hz", "availability",
             "update_second_moment", "max_joules_per_round"}  # fmt: skip
_MAY_BE_INFINITE = {"max_bandwidth_hz", "max_rank", "max_joules_per_round"}
_WHOLE = {"max_rank"}
"""Columns of counts; a fraction is a mistake, such as a comma that became a point."""


def _column(name: str, value: ArrayLike, ids: NDArray[np.str_], count: int) -> Floats:
    try:
        array = np.array(value, dtype=np.float64, ndmin=1)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"client column {name!r} is not numeric: {error}") from None
    if array.shape != (count,):
        raise InputError(
            f"client column {name!r} has shape {array.shape}; data_weight has {count} entries"
        )
    finite = np.isfinite(array) | ((array == np.inf) & (name in _MAY_BE_INFINITE))
    limits = [
        (~finite, "must be a finite number"),
        ((array <= 0) & (name in _POSITIVE), "must be above 0"),
        (array < 0, "must not be negative"),
        (np.isfinite(array) & (array > MOST), f"must be at most {MOST:g}"),
        ((array > 0) & (array < LEAST), f"must be at least {LEAST:g}, or 0 where that is allowed"),
        ((array < 1) & (name == "max_rank"), "must be at least 1; drop the client otherwise"),
        (
            np.isfinite(array) & (np.floor(array) != array) & (name in _WHOLE),
            "must be a whole number, or inf; round it down to what the memory holds",
        ),
        ((array > 1) & (name == "availability"), "is a probability and must be at most 1"),
    ]
    for wrong, rule in limits:
        if np.any(wrong):
            n = int(np.argmax(wrong))
            who = ids[n] if n < len(ids) else n
            raise InputError(f"{name} of client {shortened(str(who))} is {array[n]:g}; it {rule}")
    return array


@dataclass(frozen=True, slots=True)
class System:
    """What the clients share: the band, the adapter, the training, the message sizes."""

    bandwidth_hz: float
    """W: uplink bandwidth shared by the participants of a round, Hz."""
    lora_rank: int
    """r: rank of the global adapter."""
    local_steps: int = 5
    """H: local steps a round."""
    fixed_bits: float = 0.0
    """Bits a client sends whatever its rank: task head and header."""
    bits_per_rank: float = 1e6
    """Bits a client sends for each rank component."""
    sketch: Sketch = RESIDUAL
    """How a client trains k of r components."""
    noise_ratio: float = 0.5
    """V / ||u||^2 at full participation and full rank: a guess before a run, measured in it (what
    exactly is measured: docs/noise-scale.md). Too low a guess costs more than too high a one."""
    download_fixed_bits: float | None = None
    """Bits a client receives whatever its rank; None for `fixed_bits`."""
    download_bits_per_rank: float | None = None
    """Bits a client receives for each rank component that its sketch needs; None for
    `bits_per_rank`."""
    downlink_bps: float = np.inf
    """Downlink rate of every client, bit/s; infinite where downloads cost no time."""
    overhead_seconds: float = 0.0
    """What every round costs besides, also an empty one, s."""
    allocation: AllocationRule = DEFAULT_ALLOCATION
    """How the band is divided among the participants of a round."""
    fading: bool = False
    """Rayleigh block fading, drawn anew each round. Planners see the links' mean over it
    (`wireless.channel.mean_faded`), and its law."""

    def __post_init__(self) -> None:
        positive = ("bandwidth_hz", "lora_rank", "local_steps", "bits_per_rank", "downlink_bps")
        down = ("download_fixed_bits", "download_bits_per_rank")
        given = [name for name in down if getattr(self, name) is not None]
        numbers = (*positive, "fixed_bits", "noise_ratio", "overhead_seconds", *given)
        check_fields(self, sketch=Sketch, **dict.fromkeys(numbers, NUMBER))
        for name in numbers:
            value = getattr(self, name)
            if not (value > 0 if name in positive else value >= 0):
                rule = "above 0" if name in positive else "0 or more"
                raise InputError(f"{name} is {shortened(value)}; it must be {rule}")
            infinite = value == np.inf and name == "downlink_bps"
            if not (value <= MOST or infinite) or 0 < value < LEAST:
                raise InputError(
                    f"{name} is {shortened(value)}; it must be finite, from {LEAST:g} to {MOST:g}"
                )
        if not isinstance(self.sketch, Sketch):
            raise InputError(
                f"sketch is {self.sketch!r}; give fedpace.sketch_named('residual') or 'scaled'"
            )
        if self.allocation not in get_args(AllocationRule):
            rules = ", ".join(map(repr, get_args(AllocationRule)))
            raise InputError(f"allocation is {self.allocation!r}; choose one of {rules}")
