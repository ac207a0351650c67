"""Keeping the p95 round time below its limit."""

from collections.abc import Callable

import numpy as np

from fedpace.core.profile import Floats
from fedpace.planning.objective import Problem
from fedpace.planning.round_time import quantile_and_gradient

__all__ = ["p95_excess", "p95_seconds", "shrink_to_p95"]

_MARGIN = 1e-4
"""How close a shrunk plan comes to its limit, as a share of the way to q_min."""


def p95_seconds(problem: Problem, sampling_probability: Floats, sketch_rank: Floats) -> float:
    """The 95 % quantile of the round time, s."""
    return quantile_and_gradient(
        0.95, sampling_probability, sketch_rank, problem.clients, problem.system
    )[0]


def p95_excess(
    problem: Problem, sampling_probability: Floats, sketch_rank: Floats
) -> tuple[float, Floats, Floats]:
    """Logarithm of p95 over its limit, and its derivatives in log q and log k."""
    assert problem.p95_limit_seconds is not None
    q, k = sampling_probability, sketch_rank
    seconds, by_q, by_k = quantile_and_gradient(0.95, q, k, problem.clients, problem.system)
    # Where nobody takes part in 95 % of the rounds, their time is the overhead, perhaps 0.
    seconds = max(seconds, 1e-12 * problem.p95_limit_seconds)
    excess = float(np.log(seconds / problem.p95_limit_seconds))
    return excess, by_q * q / seconds, by_k * k / seconds


def shrink_to_p95(
    problem: Problem, path: Callable[[float], Floats], sketch_rank: Floats
) -> Floats | None:
    """Go along a path of falling q until the p95 limit holds.

    The quantile falls as any q falls, so the first such point is found by bisection.

    Args:
        problem: with or without a p95 limit.
        path: q at 0 (the start) to 1 (the end), none of its entries rising.
        sketch_rank: k, shape (N,).

    Returns:
        q, or None where even the end of the path is too slow.
    """
    limit = problem.p95_limit_seconds

    def fits(part: float) -> bool:
        return limit is None or p95_seconds(problem, path(part), sketch_rank) <= limit

    if fits(0.0):
        return path(0.0)
    if not fits(1.0):
        return None
    low, high = 0.0, 1.0
    while high - low > _MARGIN:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return path(high)
