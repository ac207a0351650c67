r"""The uplink of one round, divided among its participants.

Participant n starts to send at tau_n and has d_n bits. It ends by T if its bandwidth is at least
b_n(T), the bandwidth that gives the rate d_n / (T - tau_n). All b_n fall as T grows, so the least T
that the band W allows is the root of sum_n b_n(T) = W: everyone finishes together. Moving band
from one participant to another would make the giver later than T, so no other split is earlier.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike

from fedpace.core.arguments import NUMBER, NUMBERS, refuse_where, takes
from fedpace.core.errors import InputError
from fedpace.core.profile import DEFAULT_ALLOCATION, AllocationRule, Floats
from fedpace.wireless.channel import bandwidth_for_rate, bandwidth_slope, one_link, rate_bps
from fedpace.wireless.work_conserving import finish_seconds

__all__ = ["Allocation", "AllocationRule", "allocate_bandwidth"]


@dataclass(frozen=True, slots=True, eq=False)
class Allocation:
    """How M participants share the uplink of one round."""

    bandwidth_hz: Floats
    """b_n, shape (M,), Hz; constant while the client sends. Under "work-conserving", where it
    changes, the constant bandwidth that would send as much in the same time: at constant spectral
    efficiency the mean while sending, at a Shannon link a little less."""
    finish_seconds: Floats
    """When each has sent everything, shape (M,), from the start of the round, s."""
    round_seconds: float
    """T, the last of them, s; 0 where M = 0."""


@takes(
    start_seconds=NUMBERS, upload_bits=NUMBERS, total_hz=NUMBER, max_bandwidth_hz=NUMBERS,
    rule=str, link=NUMBERS,
)  # fmt: skip
def allocate_bandwidth(
    start_seconds: ArrayLike,
    upload_bits: ArrayLike,
    total_hz: float,
    *,
    max_bandwidth_hz: ArrayLike | None = None,
    rule: AllocationRule = DEFAULT_ALLOCATION,
    **link: ArrayLike | None,
) -> Allocation:
    r"""Divide the uplink among the participants of one round.

    "equal-finish" minimises T over b subject to tau_n + d_n / R_n(b_n) <= T, sum_n b_n <= W and
    b_n <= max_bandwidth_hz_n, with R_n from `channel.rate_bps` (derived in docs/clock.md). Every
    participant gets what it needs to finish at T and no more. Where a participant that is already
    at its own limit sets T, the others need less than the rest of the band: what is left over is
    not handed out, since nobody can use it to end the round earlier.

    "equal-share" gives each W / M, or its own limit if that is less; the rest is not handed out.

    "work-conserving" divides the whole band anew whenever someone becomes ready to send or is done,
    among those who are ready, so that they would finish together (`work_conserving`). Never later
    than the other two; where all start together it is "equal-finish".

    Args:
        start_seconds: tau, shape (M,), s.
        upload_bits: d, shape (M,), bit.
        total_hz: W, Hz.
        max_bandwidth_hz: most that each can use, scalar or shape (M,), Hz; None: no limit.
        rule: how to divide.
        **link: the description of the links, scalar or shape (M,), by its name in `links.LINKS`:
            ``spectral_efficiency``, bit/s/Hz, or ``snr_hz``, P g / N0 of Shannon links, Hz.

    Returns:
        Bandwidths and times; T is exact to about 1e-15 of the longest upload.

    Raises:
        InputError: a participant that could never finish, or another value out of range.

    Example:
        >>> allocation = allocate_bandwidth(
        ...     [1.0, 2.0], [4e6, 4e6], 5e6, spectral_efficiency=2.0, rule="equal-finish")
        >>> allocation.bandwidth_hz.round(3).tolist(), round(allocation.round_seconds, 3)
        ([1298437.881, 3701562.119], 2.54)
    """
    if rule not in get_args(AllocationRule):
        rules = " or ".join(map(repr, get_args(AllocationRule)))
        raise InputError(f"allocation rule {rule!r} is unknown; choose {rules}")
    start = np.atleast_1d(np.asarray(start_seconds, dtype=np.float64))
    shape = start.shape
    bits = _checked("upload_bits", upload_bits, shape, positive=False)
    _checked("start_seconds", start, shape, positive=False)
    if not (0 < total_hz < np.inf):
        raise InputError(f"total_hz is {total_hz!r}; the band must be finite and above 0 Hz")
    own = np.inf if max_bandwidth_hz is None else max_bandwidth_hz
    cap = np.minimum(_checked("max_bandwidth_hz", own, shape, infinite=True), total_hz)
    name, model, value = one_link(link)
    columns = {name: _checked(name, value, shape)}
    cap = np.minimum(cap, model.widest_hz(columns[name]))
    if len(start) == 0:
        return Allocation(np.zeros(0), np.zeros(0), 0.0)
    share = np.minimum(cap, total_hz / len(start))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return _divided(start, bits, total_hz, cap, share, rule, columns)


def _divided(
    start: Floats,
    bits: Floats,
    total_hz: float,
    cap: Floats,
    share: Floats,
    rule: AllocationRule,
    columns: dict[str, Floats],
) -> Allocation:
    if rule == "work-conserving":
        rows = {name: column[None] for name, column in columns.items()}
        finish = finish_seconds(start[None], bits[None], cap[None], rows, total_hz)[0]
        rate = bits / np.where(finish > start, finish - start, np.inf)
        bandwidth = np.minimum(bandwidth_for_rate(rate, **columns), cap)
        return _ending(bandwidth, finish)
    if rule == "equal-finish":
        bandwidth = _equal_finish(start, bits, total_hz, cap, share, columns)
    else:
        bandwidth = share
    return _ending(bandwidth, start + _upload_seconds(bits, bandwidth, columns))


def _ending(bandwidth: Floats, finish: Floats) -> Allocation:
    refuse_where(
        ~np.isfinite(finish), "finish_seconds", finish,
        "be a number; give fewer upload_bits, a better link or a wider band",
    )  # fmt: skip
    return Allocation(bandwidth, finish, float(finish.max()))


def _equal_finish(
    start: Floats,
    bits: Floats,
    total_hz: float,
    cap: Floats,
    share: Floats,
    link: dict[str, Floats],
) -> Floats:
    """Solve sum_n b_n(T) = W for T by Newton's method in a bracket.

    The unknown is x = T - max tau: a short upload after a long computation keeps its digits. Newton
    runs on 1 / sum b_n, which for constant links is concave and increasing (Cauchy-Schwarz), and a
    straight line for one participant or equal tau.
    """
    ahead = start.max() - start
    # Alone at its limit each needs at least low; the equal share, which fits the band, gives high.
    low = float(np.max(_upload_seconds(bits, cap, link) - ahead))
    high = float(np.max(_upload_seconds(bits, share, link) - ahead))
    x, spent = low, False
    while True:
        left = np.where(bits > 0, x + ahead, 1.0)
        rate = bits / left
        need = np.minimum(bandwidth_for_rate(rate, **link), cap)
        total = float(need.sum())
        if not spent and total <= total_hz:
            return need  # a participant at its own limit sets T
        spent = True
        if total > total_hz:
            low = x
        else:
            high = x
        falls = bandwidth_slope(rate, **link) * rate / left  # -d need / d x
        step = (total - total_hz) / float(falls.sum())
        change = falls * step
        if np.all(np.abs(change) <= 1e-8 * need):
            break  # the rest is linear to 1e-16
        x += total / total_hz * step
        if not low < x < high:
            x = low + (high - low) / 2
            if not low < x < high:
                break
    return np.clip(need - change, 0.0, cap)


def _upload_seconds(bits: Floats, bandwidth: Floats, link: dict[str, Floats]) -> Floats:
    sends = bits > 0
    return np.where(sends, bits / np.where(sends, rate_bps(bandwidth, **link), 1.0), 0.0)


def _checked(
    name: str,
    value: ArrayLike,
    shape: tuple[int, ...],
    *,
    positive: bool = True,
    infinite: bool = False,
) -> Floats:
    given = np.asarray(value, dtype=np.float64)
    if given.ndim and given.shape != shape:
        raise InputError(f"{name} has shape {given.shape}, start_seconds {shape}; match them")
    array = np.broadcast_to(given, shape)
    wrong = ~((array > 0) if positive else (array >= 0)) | ((array == np.inf) & (not infinite))
    if np.any(wrong):
        n = int(np.argmax(wrong))
        remedy = "leave the participant out" if positive else "give a finite number, 0 or more"
        raise InputError(
            f"{name}[{n}] is {array[n]:g}, so participant {n} can never finish; {remedy}"
        )
    return array
