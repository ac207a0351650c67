"""How long a round of a plan takes, and keeping its p95 below a limit."""

from collections.abc import Callable

import numpy as np

from fedpace.core.plan import Plan
from fedpace.core.profile import Floats
from fedpace.planning.crowd import crowd_quantile_and_gradient, crowd_round_time
from fedpace.planning.objective import Decision, Problem
from fedpace.planning.ranks import whole
from fedpace.planning.round_time import RoundTime, quantile_and_gradient, round_time

__all__ = ["p95_excess", "p95_seconds", "predicted", "shrink_to_p95"]

_MARGIN = 1e-4
"""How close a shrunk plan comes to its limit, as a share of the way to q_min."""


def predicted(problem: Problem, decision: Decision) -> RoundTime:
    """The distribution of the round time that a plan states."""
    if problem.crowd is not None:
        rank = decision.sketch_rank.astype(np.float64)
        return crowd_round_time(problem.crowd, decision.joins(), rank)
    plan = Plan("", problem.clients.client_id.copy(), decision.joins(), decision.sketch_rank.copy())
    return round_time(plan, problem.clients, problem.system)


def p95_seconds(problem: Problem, sampling_probability: Floats, sketch_rank: Floats) -> float:
    """The p95 round time that a plan would state, s."""
    return predicted(problem, Decision(sampling_probability, whole(sketch_rank))).quantile(0.95)


def p95_excess(
    problem: Problem, sampling_probability: Floats, sketch_rank: Floats
) -> tuple[float, Floats, Floats]:
    """Logarithm of p95 over its limit, by the smooth law; its derivatives in log q and log k."""
    assert problem.p95_limit_seconds is not None
    q, k, crowd = sampling_probability, sketch_rank, problem.crowd
    if crowd is None:
        seconds, by_q, by_k = quantile_and_gradient(0.95, q, k, problem.clients, problem.system)
    else:
        seconds, by_q, by_k = crowd_quantile_and_gradient(crowd, 0.95, q, k)
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
