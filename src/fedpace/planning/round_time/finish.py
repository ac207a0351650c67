"""How long rounds with given participants take, by the rule that divides the band."""

import numpy as np
from numpy.typing import NDArray

from fedpace.core.profile import Floats
from fedpace.core.rng import rng_for
from fedpace.planning.round_time.band_share import band_share
from fedpace.planning.round_time.law import RoundLaw
from fedpace.wireless.channel import rate_bps
from fedpace.wireless.fading import drawn_demands
from fedpace.wireless.links import GAIN_FLOOR
from fedpace.wireless.work_conserving import finish_seconds

__all__ = ["fading_demands", "round_seconds"]

_PAIRS = 1 << 18
"""Pairs of round and participant whose band is divided at once."""


def fading_demands(law: RoundLaw, rounds: int, seed: int, batch: int = 0) -> Floats:
    """Draw by what each demand is multiplied, shape (D, N); all 1 where links do not fade."""
    shape = rounds, len(law)
    if law.efficiency is None:
        return np.broadcast_to(np.ones(1), shape)
    drawn = rng_for(seed, "simulation", 1, batch).exponential(size=shape)
    return drawn_demands(law.efficiency, np.maximum(drawn, GAIN_FLOOR))


def round_seconds(
    law: RoundLaw, joined: NDArray[np.bool_], demands: Floats | None = None
) -> Floats:
    """Return how long each round takes, without the overhead.

    Args:
        law: N clients, the band and its rule.
        joined: who takes part, shape (D, N).
        demands: by what each client's bits are multiplied, shape (D, N); None: 1.

    Returns:
        T, shape (D,), s; 0 for an empty round.
    """
    if demands is None:
        demands = np.broadcast_to(np.ones(1), joined.shape)
    if law.allocation == "equal-finish":
        return _together(law, joined, demands)
    result = np.zeros(len(joined))
    most = max(1, int(joined.sum(axis=1).max(initial=0)))
    for first in range(0, len(joined), size := max(1, _PAIRS // most)):
        rows = slice(first, first + size)
        place = np.argsort(~joined[rows], axis=1, kind="stable")[:, :most]
        here = np.take_along_axis(joined[rows], place, axis=1)
        bits = law.bits[place] * np.take_along_axis(demands[rows], place, axis=1)
        divide = _never_idle if law.allocation == "work-conserving" else _shared
        result[rows] = np.where(here, divide(law, place, here, bits), 0.0).max(axis=1)
    return result


def _never_idle(
    law: RoundLaw, place: NDArray[np.intp], here: NDArray[np.bool_], bits: Floats
) -> Floats:
    return finish_seconds(
        np.where(here, law.start[place], np.inf),
        np.where(here, bits, 0.0),
        law.band * np.minimum(law.limit, 1.0)[place],
        {name: column[place] for name, column in law.link.items()},
        law.band,
    )


def _shared(
    law: RoundLaw, place: NDArray[np.intp], here: NDArray[np.bool_], bits: Floats
) -> Floats:
    """Equal shares."""
    share = np.minimum(law.limit[place], 1 / np.maximum(here.sum(axis=1, keepdims=True), 1))
    link = {name: column[place] for name, column in law.link.items()}
    return np.asarray(law.start[place] + bits / rate_bps(share * law.band, **link))


def _together(law: RoundLaw, joined: NDArray[np.bool_], demands: Floats) -> Floats:
    """Solve sum_n x_n(T) = 1 over each row's participants, shape (D,); 0 for an empty row.

    Newton's method on 1 / sum x, which is nearly straight in T, from the largest solo time, and
    bisection where a step leaves the bracket.
    """
    row, client = np.nonzero(joined)
    result = np.zeros(len(joined))
    if len(row) == 0:
        return result
    first = np.flatnonzero(np.diff(row, prepend=-1))
    group = np.repeat(np.arange(len(first)), np.diff(first, append=len(row)))
    times, start = demands[row, client], law.start[client]
    bits = law.bits[client] * times
    link = {name: column[client] for name, column in law.link.items()}
    low = np.maximum.reduceat(start + law.solo[client] * times, first)
    seconds, high = low, np.full(len(first), np.inf)
    for _ in range(100):
        load, fall = band_share(bits, seconds[group] - start, link, law.band)
        total, slope = np.add.reduceat(load, first), np.add.reduceat(fall, first)
        late = total > 1
        # Where a limit of its own sets a client's solo time, the band need not be spent.
        high = np.where(late, high, seconds)
        low = np.where(late, seconds, low)
        step = seconds + total * (total - 1) / slope
        inside = (low <= step) & (step <= high)
        with np.errstate(invalid="ignore"):
            step = np.where(inside, step, np.where(high < np.inf, (low + high) / 2, seconds * 2))
        done = np.abs(step - seconds) <= 1e-13 * seconds
        seconds = step
        if done.all():
            break
    result[row[first]] = seconds
    return result
