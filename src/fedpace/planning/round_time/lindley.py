r"""The law of a round whose band never idles: Lindley's recursion as a Markov chain.

The participants in the order of their starts tau, each with u seconds of upload alone in the band:

.. math:: V \leftarrow \max(V, \tau_n) + u_n, \qquad V_0 = 0, \qquad T = V_N,

where client n takes part with probability p_n, independently of all others and so of V. Hence V is
a Markov chain, and one sweep over the clients gives what is asked of T: backwards for the mean of
any function g of it,

.. math:: J_{N+1} = g, \qquad J_n(v) = (1 - p_n) J_{n+1}(v) + p_n J_{n+1}(\max(v, \tau_n) + u_n),
    \qquad E[g(T)] = J_1(0),

forwards for its distribution; both together give the derivatives in every p, tau and u. Where tau_n
and u_n are random, too, they have a few values m with chances w_m, and p_n J(...) becomes
p_n sum_m w_m J_{n+1}(max(v, tau_nm) + u_nm); in the order of the means of tau. For the
mean, J_n is a straight line below tau_n and of slope 1 above all tau, so the grid reaches from the
first start to the last and nothing is cut off. Between the nodes J is a cubic. Derived in
docs/round-time.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from fedpace.core.profile import Floats

__all__ = ["LindleyChain", "Slopes"]

_MEAN_NODES = 384
"""Nodes of the distribution for a mean."""
_LAW_NODES = 1024
"""Nodes of the distribution itself, and for a quantile."""
_LOAD_DEVIATIONS = 6.0
"""Standard deviations of the load up to which the distribution is followed."""
_RAMP_HALF_WIDTH = 0.01
"""Half-width of the ramp by which a quantile is smoothed, as a part of the time."""


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """A mean E[g(T)], and its derivatives."""

    value: float
    d_probability: Floats
    """Shape (N,)."""
    d_start: Floats
    """In each value of tau, shape (N, M)."""
    d_solo: Floats
    """In each value of u, shape (N, M)."""


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """Times v_i = first + i step, i < count; behind the last one a straight line goes on."""

    first: float
    step: float
    count: int

    def seconds(self) -> Floats:
        return np.asarray(self.first + self.step * np.arange(self.count), dtype=np.float64)


class _Step(NamedTuple):
    """What one client does to V on a grid, with one of its values of start and upload."""

    chance: float
    """That it takes part with them, p w,"""
    weight: float
    """and w alone."""
    first: int
    """First node not before its start."""
    fits: int
    """First node from which its upload ends behind the grid."""
    whole: int
    """Its upload in steps of the grid, the whole ones,"""
    rest: float
    """the rest,"""
    taps: Floats
    """the weights of the cubic there,"""
    turns: Floats
    """and their derivatives."""
    end: int
    """Where its upload ends if it begins at its start, likewise."""
    end_rest: float
    end_taps: Floats


@dataclass(frozen=True, slots=True, eq=False)
class LindleyChain:
    """N clients in the order of their starts, with M values of start and upload each."""

    probability: Floats
    """Chance to take part, shape (N,)."""
    start: Floats
    """tau, shape (N, M), s."""
    solo: Floats
    """u: seconds of the upload alone in the band, shape (N, M)."""
    weight: Floats
    """Chance of each value, shape (M,)."""
    order: NDArray[np.intp]
    """Where each stood before, shape (N,)."""

    @classmethod
    def of(
        cls, probability: Floats, start: Floats, solo: Floats, weight: Floats | None = None
    ) -> "LindleyChain":
        """Sort the clients; without weights each has one start and one upload, shapes (N,)."""
        if weight is None:
            start, solo, weight = start[:, None], solo[:, None], np.ones(1)
        order = np.argsort(start @ weight, kind="stable")
        return cls(probability[order], start[order], solo[order], weight, order)

    def mean(self, nodes: int = _MEAN_NODES) -> Slopes:
        """E[T], 0 where nobody takes part."""
        first = float(self.start.min())
        width = max(float(self.start.max()) - first, 1e-3 * float(self.solo.max()))
        grid = _Grid(first, width / (nodes - 1), nodes)
        return self._slopes(grid, grid.seconds(), 0.0, 1.0)

    def distribution(self, nodes: int = _LAW_NODES) -> tuple[Floats, Floats]:
        """Times and P(T <= s) at them: straight lines between, and a jump at the first, 0."""
        grid = self._whole(nodes)
        density, nobody = self._forward(grid)
        edges = grid.seconds() + grid.step / 2
        # A cubic swings a little beside a jump; the nearest rising sequence has it where it is.
        below = isotonic_regression(nobody + np.cumsum(density)).x
        below = np.clip(below, nobody, None)
        below /= max(below[-1], 1e-300)
        seconds = np.concatenate([[0.0, 0.0, max(edges[0] - grid.step, 0.0)], edges])
        return seconds, np.concatenate([[0.0, nobody, nobody], below])

    def quantile(self, probability: float, nodes: int = _LAW_NODES) -> Slopes:
        """The quantile of T, a jump of its distribution smoothed by 1 %; 0 where most are empty."""
        grid = self._whole(nodes)
        density, nobody = self._forward(grid)
        if nobody >= probability:
            nothing = np.zeros(self.start.shape)
            return Slopes(0.0, nothing[:, 0], nothing, nothing)
        at = grid.seconds()

        def ramp(seconds: float) -> tuple[Floats, Floats]:
            width = max(_RAMP_HALF_WIDTH * seconds, 2 * grid.step)
            x = np.clip((seconds - at) / width, -1.0, 1.0)
            return 0.5 + 0.25 * x * (3 - x * x), 0.75 * (1 - x * x) / width

        low, high = float(at[0]), float(at[-1]) * (1 + 2 * _RAMP_HALF_WIDTH) + 4 * grid.step
        for _ in range(60):
            middle = (low + high) / 2
            if nobody + density @ ramp(middle)[0] < probability:
                low = middle
            else:
                high = middle
        rises, slope = ramp(high)
        made = self._slopes(grid, rises, 1.0, 0.0)
        scale = -1 / max(float(density @ slope), 1e-9 / high)
        return Slopes(high, scale * made.d_probability, scale * made.d_start, scale * made.d_solo)

    def _whole(self, nodes: int) -> _Grid:
        """A grid from the first start to behind nearly every end."""
        p, largest = self.probability, self.solo.max(axis=1)
        mean = self.solo @ self.weight
        own = self.solo**2 @ self.weight - mean**2
        columns = p * mean, p * (1 - p) * mean**2 + p * np.maximum(own, 0.0), largest
        load, spread, most = (np.cumsum(column[::-1])[::-1] for column in columns)
        behind = np.minimum(most, largest + load + _LOAD_DEVIATIONS * np.sqrt(spread))
        first, last = float(self.start.min()), float(np.max(self.start.max(axis=1) + behind))
        return _Grid(first, (last - first) * (1 + 2 / nodes) / (nodes - 1), nodes)

    def _forward(self, grid: _Grid) -> tuple[Floats, float]:
        density, nobody = np.zeros(grid.count), 1.0
        for p, steps in zip(self.probability.tolist(), self._steps(grid), strict=True):
            below = [_below(step, density, nobody) for step in steps]
            density, nobody = _moved(p, steps, density, nobody, below)
        return density, nobody

    def _steps(self, grid: _Grid) -> Iterator[tuple[_Step, ...]]:
        """Yield the values of each client."""
        count = grid.count
        chance, start = np.outer(self.probability, self.weight).ravel(), self.start.ravel()
        first = np.ceil((start - grid.first) / grid.step).astype(np.int64).clip(0, count)
        whole, rest = _split(self.solo.ravel() / grid.step)
        end, end_rest = self._ends(grid)
        fits = np.maximum(count - whole, first)
        weight = np.tile(self.weight, len(self.start))
        columns = chance, weight, first, fits, whole, rest
        lists = [column.tolist() for column in columns]
        ends = end.tolist(), end_rest.tolist(), _taps(end_rest)
        each = map(_Step, *lists, _taps(rest), _tap_slopes(rest), *ends)
        yield from zip(*[each] * len(self.weight), strict=True)

    def _slopes(self, grid: _Grid, end: Floats, at_zero: float, slope: float) -> Slopes:
        """E[g(T)]: g on the grid, at 0, and its slope behind the grid."""
        count, clients = grid.count, len(self.start)
        every, per_node = list(self._steps(grid)), slope * grid.step
        # Node i stands at i + 1: one more before the grid and three behind it, on straight lines.
        wide, zero = np.empty((clients + 1, count + 4)), np.empty(clients + 1)
        wide[clients, 1 : count + 1], zero[clients] = end, at_zero
        behind, nodes = per_node * np.array([1.0, 2.0, 3.0]), np.arange(count)
        chances = self.probability.tolist()
        _extend(wide[clients], behind)
        for n in range(clients - 1, -1, -1):
            then, now = wide[n + 1], wide[n]
            np.multiply(then, 1 - chances[n], out=now)
            zero[n] = (1 - chances[n]) * zero[n + 1]
            for step in every[n]:
                p, first, fits, whole = step.chance, step.first, step.fits, step.whole
                alone = p * _alone(then, count, step, per_node)
                now[1 : first + 1] += alone
                zero[n] += alone
                if fits > first:
                    now[first + 1 : fits + 1] += np.correlate(
                        then[first + whole : fits + whole + 3], p * step.taps
                    )
                if fits < count:
                    over = nodes[fits:] + (whole - (count - 1) + step.rest)
                    now[fits + 1 : count + 1] += p * (then[count] + per_node * over)
            _extend(now, behind)
        change, (below, moving) = np.zeros(clients), np.zeros((2, *self.start.shape))
        density, nobody = np.zeros(count), 1.0
        for n, steps in enumerate(every):
            then = wide[n + 1]
            change[n] = density @ (wide[n] - then)[1 : count + 1]
            change[n] += nobody * (zero[n] - zero[n + 1])
            for m, step in enumerate(steps):
                first, fits, whole = step.first, step.fits, step.whole
                if fits < count:
                    moving[n, m] = per_node * np.add.reduce(density[fits:])
                if fits > first:
                    rises = np.correlate(then[first + whole : fits + whole + 3], step.turns)
                    moving[n, m] += density[first:fits] @ rises
                below[n, m] = _below(step, density, nobody)
            density, nobody = _moved(chances[n], steps, density, nobody, below[n].tolist())
        by_step = np.outer(self.probability, self.weight) / grid.step
        d_start = by_step * below * self._rises_at_end(grid, wide[1:], per_node)
        d_probability, (by_start, by_solo) = np.empty(clients), np.empty((2, *self.start.shape))
        d_probability[self.order] = change / self.probability
        by_start[self.order], by_solo[self.order] = d_start, d_start + by_step * moving
        return Slopes(float(zero[0]), d_probability, by_start, by_solo)

    def _rises_at_end(self, grid: _Grid, wide: Floats, per_node: float) -> Floats:
        """Slope of each row where an upload ends that begins at its start, per node, (N, M)."""
        end, rest = self._ends(grid)
        inside, row = end < grid.count, np.repeat(np.arange(len(wide)), len(self.weight))
        here = wide[row[:, None], np.where(inside, end, 0)[:, None] + np.arange(4)]
        rises = np.where(inside, np.einsum("nk,nk->n", here, _tap_slopes(rest)), per_node)
        return rises.reshape(self.start.shape)

    def _ends(self, grid: _Grid) -> tuple[NDArray[np.int64], Floats]:
        """Where an upload ends that begins at its start: whole steps and the rest, (N M,)."""
        return _split((self.start + self.solo - grid.first).ravel() / grid.step)


def _split(steps: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Whole steps of the grid and the rest."""
    far = np.minimum(steps, 1e9)
    whole = np.floor(far).astype(np.int64)
    return whole, far - whole


def _below(step: _Step, density: Floats, nobody: float) -> float:
    """Return the chance that the band is free at the client's start."""
    return nobody + float(np.add.reduce(density[: step.first]))


def _moved(
    chance: float, steps: tuple[_Step, ...], density: Floats, nobody: float, below: Sequence[float]
) -> tuple[Floats, float]:
    """Return the distribution of V once a client has had its chance."""
    count = len(density)
    wide = np.zeros(count + 4)  # node i at i + 1
    for step, free in zip(steps, below, strict=True):
        w, first, fits = step.weight, step.first, step.fits
        if fits > first:
            wide[first + step.whole : fits + step.whole + 3] += np.convolve(
                density[first:fits], w * step.taps
            )
        if fits < count:
            wide[count] += w * np.add.reduce(density[fits:])
        if step.end < count:
            wide[step.end : step.end + 4] += w * free * step.end_taps
        else:
            wide[count] += w * free
    wide[count] += np.add.reduce(wide[count + 1 :])
    wide[1] += 2 * wide[0]
    wide[2] -= wide[0]
    moved = wide[1 : count + 1]
    moved *= chance
    moved += (1 - chance) * density
    return moved, (1 - chance) * nobody


def _extend(wide: Floats, behind: Floats) -> None:
    """Fill in the node before the grid and the three behind it, on straight lines."""
    wide[0] = 2 * wide[1] - wide[2]
    np.add(wide[-4], behind, out=wide[-3:])


def _alone(wide: Floats, count: int, step: _Step, slope: float) -> float:
    """Return the function where the upload ends if nobody is before it."""
    if step.end < count:
        return float(wide[step.end : step.end + 4] @ step.end_taps)
    return float(wide[count] + slope * (step.end - (count - 1) + step.end_rest))


def _taps(rest: Floats) -> Floats:
    """Weights of the cubic through nodes -1, 0, 1, 2 at `rest` in [0, 1), shape (N, 4)."""
    x = rest
    return np.stack(
        [
            -x * (x - 1) * (x - 2) / 6,
            (x + 1) * (x - 1) * (x - 2) / 2,
            -(x + 1) * x * (x - 2) / 2,
            (x + 1) * x * (x - 1) / 6,
        ],
        axis=-1,
    )


def _tap_slopes(rest: Floats) -> Floats:
    """Derivatives of `_taps`."""
    x = rest
    return np.stack(
        [
            -(3 * x * x - 6 * x + 2) / 6,
            (3 * x * x - 4 * x - 1) / 2,
            -(3 * x * x - 2 * x - 2) / 2,
            (3 * x * x - 1) / 6,
        ],
        axis=-1,
    )
