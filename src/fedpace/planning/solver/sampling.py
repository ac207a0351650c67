"""Sampling probabilities for given sketch ranks: closed form at given prices, and by one scale."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from fedpace.core.profile import Floats
from fedpace.planning.solver.objective import (
    LARGEST_UNGROUPED,
    Point,
    Problem,
    TimeLaw,
    bound_law,
    evaluate,
    probability_limit,
)

__all__ = ["asked", "best_scale", "fill", "held_scale", "within_participants"]

_FEW_CLIENTS = 16
"""Up to this many clients every scale of the grid is tried by the law itself."""
_GRID_SCALES = 24
"""Scales of the grid."""
_LOG_SCALE_ACCURACY = 3e-3
"""Error of the logarithm of the scale; the objective is flat there, to about its square."""


def fill(reward: Floats, price: Floats, level: float, lower: Floats, upper: Floats) -> Floats:
    r"""Water-filling: the q that minimises :math:`\sum c_n / q_n + \mu \sum w_n q_n` in a box.

    Each q_n stands for itself: q_n = sqrt(c_n / (mu w_n)), cut to its limits.

    Args:
        reward: c, shape (N,), >= 0.
        price: w, shape (N,); where it is not above 0 the upper limit is best.
        level: mu > 0.
        lower: shape (N,).
        upper: shape (N,).

    Example:
        >>> fill(np.array([1.0, 4.0]), np.ones(2), 16.0, np.zeros(2), np.ones(2)).tolist()
        [0.25, 0.5]
    """
    charged = price > 0
    q = np.sqrt(reward / (level * np.where(charged, price, 1.0)))
    return np.clip(np.where(charged, q, upper), lower, upper)


def best_scale(
    problem: Problem, law: TimeLaw, direction: Floats, sketch_rank: Floats
) -> tuple[Floats, Point]:
    """Minimise the objective over s with q_n = s direction_n, cut to [q_min, limit].

    The best of a grid over all s that matter, then the root of the derivative next to it. Where
    clients are many the grid is evaluated by the upper bound, which costs next to nothing; what is
    returned is always the law's.

    Args:
        problem: the problem; its p95 limit is left to the caller.
        law: gives the seconds of a round.
        direction: shape (N,), above 0.
        sketch_rank: k, shape (N,).

    Returns:
        The best q, and the objective there.
    """
    most = probability_limit(problem, sketch_rank)
    seen: dict[float, tuple[Floats, Point]] = {}

    def probability(log_scale: float) -> Floats:
        return np.asarray(np.clip(np.exp(log_scale) * direction, problem.q_min, most))

    def point(log_scale: float) -> Point:
        if log_scale not in seen:
            q = probability(log_scale)
            seen[log_scale] = q, evaluate(problem, law, q, sketch_rank)
        return seen[log_scale][1]

    def slope(log_scale: float) -> float:
        here = point(log_scale)
        q = seen[log_scale][0]
        moves = (q > problem.q_min) & (q < most)
        return float(np.sum(here.time_by_q - here.rounds_by_q, where=moves))

    grid = np.linspace(
        np.log(problem.q_min / direction).min(), np.log(most / direction).max(), _GRID_SCALES
    )
    ends = float(grid[0]), float(grid[-1])
    bound = bound_law(problem)

    def rough(log_scale: float) -> float:
        return evaluate(problem, bound, probability(log_scale), sketch_rank).log_objective

    if len(direction) <= _FEW_CLIENTS:
        center = min(grid.tolist(), key=lambda s: point(s).log_objective)
    elif len(direction) <= LARGEST_UNGROUPED:
        center = min(grid.tolist(), key=rough)
    else:
        center = float(
            minimize_scalar(rough, bounds=ends, method="bounded", options={"xatol": 0.2}).x
        )
    _root_near(slope, center, ends)
    point(float(grid[-1]))  # everyone at the limit is a minimum of its own, with a ridge before it
    return min(seen.values(), key=lambda entry: entry[1].log_objective)


def asked(problem: Problem, sampling_probability: Floats) -> float:
    """Return how many clients a round asks in the mean."""
    groups = problem.groups
    if groups is None:
        return float(sampling_probability.sum())
    return float(sampling_probability @ np.broadcast_to(groups.count, sampling_probability.shape))


def within_participants(
    problem: Problem, sampling_probability: Floats, share: float = 1.0
) -> Floats:
    """Return q, scaled down where it asks for more clients than `max_participants`.

    Args:
        problem: with or without that limit; q_min keeps it.
        sampling_probability: q, shape (N,).
        share: of the limit that may be used.

    Returns:
        q_n cut to max(q_min, s q_n), the largest s at most 1 that keeps the limit.
    """
    q, limit = sampling_probability, problem.max_participants
    if limit is None or asked(problem, q) <= share * limit:
        return q

    def scaled(log_scale: float) -> Floats:
        return np.asarray(np.minimum(q, np.maximum(np.exp(log_scale) * q, problem.q_min)))

    def excess(log_scale: float) -> float:
        return asked(problem, scaled(log_scale)) - share * limit

    least = float(np.log(problem.q_min / q.max()))
    if excess(least) >= 0:
        return scaled(least)
    root = brentq(excess, least, 0.0, xtol=1e-13)
    return scaled(root - 1e-12)


def held_scale(direction: Floats, mean: float, lower: float, upper: Floats) -> Floats | None:
    """Return q_n = s direction_n, cut to [lower, upper_n], with this mean; None if none has it.

    Args:
        direction: shape (N,), above 0.
        mean: of q, at least `lower`.
        lower: least q.
        upper: largest q of each, shape (N,), at least `lower`.

    Example:
        >>> held_scale(np.array([1.0, 2.0, 9.0]), 0.6, 0.01, np.ones(3)).round(12).tolist()
        [0.266666666667, 0.533333333333, 1.0]
    """
    if upper.mean() < mean * (1 - 1e-12):
        return None

    def probability(log_scale: float) -> Floats:
        return np.asarray(np.clip(np.exp(log_scale) * direction, lower, upper))

    def excess(log_scale: float) -> float:
        return float(probability(log_scale).mean()) - mean

    least, most = np.log(lower / direction).min(), np.log(upper / direction).max()
    if excess(most) <= 0:
        return probability(most)
    if excess(least) >= 0:
        return probability(least)
    return probability(brentq(excess, least, most, xtol=1e-13))


def _root_near(slope: Callable[[float], float], center: float, ends: tuple[float, float]) -> None:
    """Walk downhill from `center` until the slope changes sign, then find its root."""
    step = -np.sign(slope(center)) * 0.25
    near = center
    while step != 0:
        far = float(np.clip(near + step, *ends))
        if far == near:
            return
        if slope(far) * step >= 0:
            brentq(slope, min(near, far), max(near, far), xtol=_LOG_SCALE_ACCURACY)
            return
        near, step = far, 2 * step
