r"""Where to look at the distribution of the round time, and what to look at there.

Between two nodes the distribution may take steps, one behind each solo time tau_n + u_n, as steep
as the upload u_n is short; with a thousand clients there are more steps than nodes. So the mean is
not a sum of point values. Node i has a hat, 1 at s_i and 0 at its neighbours; the hats add up to 1,
so the integral of any function is the sum of its averages over them. `average_over_hats` averages
what each client contributes, which places every single step exactly wherever it falls between the
nodes, and leaves an error of second order, like that of the trapezoidal rule, where several steps
share a hat.

The nodes themselves come from a fixed set of times (octaves, halved again and again), so that a
small change of the plan does not move them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpace.core.profile import Floats

__all__ = ["HatAverage", "average_over_hats", "hats", "place_quadrature", "reaches"]

_TAIL_PROBABILITY = 1e-6
"""The last node is where this much of the probability is left."""
_PASSES = 4
"""How often intervals are split."""
_NODES_ADDED = 20
"""Nodes that each pass adds at most, where width times rise is large."""
_LEAST_RISE = 1e-8
"""A node with less rise than this on both sides is dropped."""


def place_quadrature(
    first: float, cdf: Callable[[Floats], Floats], fineness: float = 1.0
) -> Floats:
    """Choose nodes for a distribution of the round time, about 40 times `fineness`.

    The error of an interval is at most half of width times rise, and falls as 1/n^2 when it is
    split in n: each pass splits in proportion to the cube root.

    Args:
        first: time before which the distribution does not rise, above 0, s.
        cdf: P(T <= s) for times of shape (M,), or an approximation of it.
        fineness: above 0; the error falls as its square.

    Returns:
        0 and times in ascending order, up to where the distribution has come to 1, s.
    """
    half_octave = np.floor(2 * np.log2(first))
    seconds = 2.0 ** ((half_octave + np.arange(16)) / 2)
    value = cdf(seconds)
    while value[-1] < 1 - _TAIL_PROBABILITY:
        farther = seconds[-1] * 2.0 ** (np.arange(1, 9) / 2)
        seconds, value = np.append(seconds, farther), np.append(value, cdf(farther))
    for _ in range(_PASSES):
        width = seconds[1:] - seconds[:-1]
        need = np.cbrt(np.maximum(width * (value[1:] - value[:-1]), 0.0))
        share = need * (_NODES_ADDED * fineness / max(need.sum(), 1e-300))
        parts = 2 ** np.floor(np.log2(1 + share)).astype(np.int64)
        left = np.repeat(np.arange(len(parts)), parts)
        part = np.arange(len(left)) - np.repeat(np.cumsum(parts) - parts, parts)
        left, part = left[part > 0], part[part > 0]
        if len(left) == 0:
            break
        added = seconds[left] + width[left] * part / parts[left]
        seconds, value = np.append(seconds, added), np.append(value, cdf(added))
        order = np.argsort(seconds)
        seconds, value = seconds[order], value[order]
    moves = value[1:] - value[:-1] > _LEAST_RISE
    return np.append(0.0, seconds[np.append(moves, True) | np.append(True, moves)])


def hats(seconds: Floats) -> tuple[Floats, Floats]:
    """Return where each hat begins and ends, each of shape (M,).

    The first hat looks back to before any step, the last one as far as its other half.
    """
    before = np.append(seconds[0] - 1.0, seconds[:-1])
    return before, np.append(seconds[1:], 2 * seconds[-1] - seconds[-2])


def reaches(seconds: Floats) -> Floats:
    """Return the area of each hat, shape (M,), s: the weights of the trapezoidal rule."""
    width = np.diff(seconds)
    return np.asarray((np.append(width, 0.0) + np.append(0.0, width)) / 2)


@dataclass(frozen=True, slots=True, eq=False)
class HatAverage:
    """Averages over the hats of M nodes of what N clients have since their cuts."""

    left: Floats
    """Mean time since the start, over the part of the hat behind the cut, shape (M, N), s."""
    open: Floats
    """Part of the hat behind the cut, shape (M, N)."""
    cut: tuple[NDArray[np.intp], NDArray[np.intp]]
    """Nodes and clients of the P pairs whose cut is within the hat."""
    open_slope: Floats
    """d ln open / d cut, shape (P,), 1/s."""
    left_slope: Floats
    """d left / d cut, at the same start, shape (P,)."""


def average_over_hats(
    seconds: Floats, before: Floats, after: Floats, start: Floats, cut: Floats
) -> HatAverage:
    """Average 1 and s - tau over the part of each hat that lies behind start + cut.

    With v = max(s - tau - cut, 0) and D the second divided difference over a hat, the averages of
    the indicator and of v are D v^2/2 and D v^3/6, exactly.

    Args:
        seconds: nodes, shape (M,), s.
        before: where their hats begin, shape (M,), s; see `hats`.
        after: where they end, shape (M,), s.
        start: tau, shape (N,), s.
        cut: seconds behind the start before which a client counts as absent, shape (N,).
    """
    left = (seconds + (after + before - 2 * seconds) / 3)[:, None] - start
    since = start + cut
    is_open = before[:, None] >= since
    node, client = np.nonzero(~is_open & (after[:, None] > since))
    low, mid, high = before[node], seconds[node], after[node]
    v, behind = np.maximum(mid - since[client], 0.0), high - since[client]
    rising, falling, reach = mid - low, high - mid, (high - low) / 2

    def average(power: int) -> Floats:
        """D v^power; v is 0 where the hat begins."""
        v_power = v**power
        return np.asarray(((behind**power - v_power) / falling - v_power / rising) / reach)

    part, moment, edge = average(2) / 2, average(3) / 6, average(1)
    part = np.maximum(part, 1e-300)
    mean = moment / part
    share = is_open.astype(np.float64)
    share[node, client] = part
    left[node, client] = cut[client] + mean
    left[share == 0] = 0.0
    return HatAverage(left, share, (node, client), -edge / part, mean * edge / part)
