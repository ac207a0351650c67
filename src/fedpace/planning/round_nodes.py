"""Where to look at the distribution of the round time: nodes placed where it moves.

The distribution rises behind each solo time tau_n + u_n, u_n the seconds of an upload alone in the
band, as steeply as that u_n is short. A grid fixed in seconds would miss the rises of clients that
compute long and send quickly. So every node is tied to clients: it is a mixture of two points
tau_n + theta u_n, and moves with them when a rank changes. Which clients, stretches theta and
mixtures are taken depends on the plan only by discrete choices.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpace.core.profile import Floats

__all__ = ["Nodes", "place_nodes"]

_ANCHORS = 10
"""Clients with a node at their solo time: quantiles of who is slowest."""
_DOUBLINGS = 6
"""Nodes behind the last solo time, each twice as far as the one before; more where needed."""
_TAIL = 1e-6
"""The last node is where this much of the probability is left."""
_PASSES = 3
_ADDED = 20
"""Nodes that each pass adds at most, where width times rise is large."""
_FLAT = 1e-8
"""A node with less rise than this on both sides is dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """M times s_i = (1 - f_i) (tau_a + theta_a u_a) + f_i (tau_b + theta_b u_b).

    Client index N stands for s = 0.
    """

    client: NDArray[np.int64]
    """a and b of each node, shape (2, M)."""
    stretch: Floats
    """theta_a and theta_b, shape (2, M)."""
    weight: Floats
    """1 - f and f, shape (2, M)."""

    def seconds(self, start: Floats, solo: Floats) -> Floats:
        """Return s, shape (M,).

        Args:
            start: tau, shape (N,), s.
            solo: u, shape (N,), s.
        """
        tau, u = np.append(start, 0.0), np.append(solo, 0.0)
        ends = tau[self.client] + self.stretch * u[self.client]
        return np.asarray((self.weight * ends).sum(axis=0))

    def pull_back(self, d_seconds: Floats, count: int) -> tuple[Floats, Floats]:
        """Turn derivatives in s into derivatives in tau and u, each of shape (N,)."""
        share = self.weight * d_seconds
        d_start = np.bincount(self.client.ravel(), share.ravel(), count + 1)
        d_solo = np.bincount(self.client.ravel(), (share * self.stretch).ravel(), count + 1)
        return d_start[:count], d_solo[:count]

    def take(self, index: NDArray[np.intp]) -> "Nodes":
        """Return the nodes at `index`."""
        return Nodes(self.client[:, index], self.stretch[:, index], self.weight[:, index])

    def _at(self, position: Floats) -> "Nodes":
        """Return mixtures of neighbouring pure nodes: position 3.25 is a quarter behind node 3."""
        i = np.minimum(position.astype(np.int64), self.client.shape[1] - 2)
        f = position - i
        return Nodes(
            np.stack([self.client[0, i], self.client[0, i + 1]]),
            np.stack([self.stretch[0, i], self.stretch[0, i + 1]]),
            np.stack([1 - f, f]),
        )


def place_nodes(
    probability: Floats,
    start: Floats,
    solo: Floats,
    cdf: Callable[[Floats], Floats],
    fineness: float = 1.0,
) -> Nodes:
    """Choose nodes for a distribution of the round time, about 40 times `fineness`.

    The error of the trapezoidal rule between two nodes is at most half of width times rise, and
    falls as 1/n^2 when the interval is split in n: each pass splits in proportion to the cube root.

    Args:
        probability: q, shape (N,).
        start: tau, shape (N,), s.
        solo: u, shape (N,), s.
        cdf: P(T <= s) for times of shape (M,), or an approximation of it.
        fineness: above 0; the error falls as its square.

    Returns:
        Nodes in ascending order, from 0 to where the distribution has come to 1.
    """
    pure = _pure_nodes(probability, start, solo, round(_ANCHORS * fineness))
    seconds = pure.seconds(start, solo)
    value = cdf(seconds)
    while value[-1] < 1 - _TAIL:
        pure = _farther(pure)
        seconds = pure.seconds(start, solo)
        value = np.append(value, cdf(seconds[len(value) :]))
    position = np.arange(float(len(seconds)))
    for _ in range(_PASSES):
        need = np.cbrt(np.maximum(np.diff(seconds) * np.diff(value), 0.0))
        parts = 1 + (need * (_ADDED * fineness / max(need.sum(), 1e-300))).astype(np.int64)
        left = np.repeat(np.arange(len(parts)), parts)
        part = np.arange(len(left)) - np.repeat(np.cumsum(parts) - parts, parts)
        left, part = left[part > 0], part[part > 0]
        if len(left) == 0:
            break
        new = position[left] + np.diff(position)[left] * part / parts[left]
        added = pure._at(new).seconds(start, solo)
        position, value = np.append(position, new), np.append(value, cdf(added))
        order = np.argsort(position, kind="stable")
        position, value, seconds = position[order], value[order], np.append(seconds, added)[order]
    moves = np.diff(value) > _FLAT
    return pure._at(position[np.append(moves, True) | np.append(True, moves)])


def _pure_nodes(probability: Floats, start: Floats, solo: Floats, anchors: int) -> Nodes:
    """Nodes tied to one client each: 0, some at solo times, some behind the last."""
    alone = start + solo
    order = np.argsort(alone, kind="stable")
    # P(nobody is slower than the m-th): the distribution of the largest solo time.
    absent = np.append(np.cumprod((1 - probability[order])[::-1])[::-1][1:], 1.0)
    levels = absent[0] + (1 - absent[0]) * (np.arange(anchors) + 0.5) / anchors
    chosen = order[np.unique(np.append(np.searchsorted(absent, levels), [0, len(order) - 1]))]
    client = np.append(chosen, np.full(_DOUBLINGS, order[-1]))
    stretch = np.append(np.ones(len(chosen)), 2.0 ** np.arange(1, _DOUBLINGS + 1))
    rank = np.argsort(start[client] + stretch * solo[client], kind="stable")
    client, stretch = np.append(len(start), client[rank]), np.append(0.0, stretch[rank])
    one = np.ones(len(client))
    return Nodes(np.stack([client, client]), np.stack([stretch, stretch]), np.stack([one, 0 * one]))


def _farther(nodes: Nodes) -> Nodes:
    """Go on doubling behind the last node."""
    last = nodes.take(np.full(_DOUBLINGS, nodes.client.shape[1] - 1))
    return Nodes(
        np.append(nodes.client, last.client, axis=1),
        np.append(nodes.stretch, last.stretch * 2.0 ** np.arange(1, _DOUBLINGS + 1), axis=1),
        np.append(nodes.weight, last.weight, axis=1),
    )
