"""How long a round of a plan takes, and keeping its p95 below a limit."""

from collections.abc import Callable

import numpy as np

from fedpace.core.plan import Decision
from fedpace.core.profile import Floats
from fedpace.planning.round_time.distribution import RoundTime, quantile_and_gradient, round_time
from fedpace.planning.round_time.grouped import grouped_quantile_and_gradient, grouped_round_time
from fedpace.planning.round_time.upper_bound import solo_seconds
from fedpace.planning.solver.objective import LARGEST_UNGROUPED, Problem, link_window
from fedpace.planning.solver.ranks import whole

__all__ = [
    "TOO_SLOW",
    "falling_path",
    "hurried_ranks",
    "p95_excess",
    "p95_seconds",
    "predicted",
    "shrink_to_p95",
]

TOO_SLOW = "infeasible: the p95 limit is exceeded {}; raise p95_limit_seconds or let 'exact' plan"
"""Verdict where the p95 limit cannot be kept."""
_HURRIED_SHARE = 0.9
"""Share of the limit that a client alone may take at its hurried rank."""
_PATH_TOLERANCE = 1e-4
"""How close a shrunk plan comes to its limit, as a share of the way to q_min."""


def predicted(problem: Problem, decision: Decision) -> RoundTime:
    """The distribution of the round time that a plan states."""
    if problem.groups is not None and len(problem.clients) > LARGEST_UNGROUPED:
        rank = decision.sketch_rank.astype(np.float64)
        return grouped_round_time(
            problem.groups.at(rank), decision.participation_probability(), rank
        )
    return round_time(decision, problem.clients, problem.system)


def p95_seconds(problem: Problem, sampling_probability: Floats, sketch_rank: Floats) -> float:
    """The p95 round time that a plan would state, s."""
    return predicted(problem, Decision(sampling_probability, whole(sketch_rank))).quantile(0.95)


def p95_excess(
    problem: Problem, limit: float, sampling_probability: Floats, sketch_rank: Floats
) -> tuple[float, Floats, Floats]:
    """Logarithm of p95 over a limit, by the smooth law; its derivatives in log q and log k."""
    q, k, groups = sampling_probability, sketch_rank, problem.groups
    window = link_window(problem, q)
    if groups is None:
        seconds, by_q, by_k = quantile_and_gradient(
            0.95, q, k, problem.clients, problem.system, quadrature=window
        )
    else:
        seconds, by_q, by_k = grouped_quantile_and_gradient(
            groups.at(k), 0.95, q, k, quadrature=window
        )
    # Where nobody takes part in 95 % of the rounds, their time is the overhead, perhaps 0.
    seconds = max(seconds, 1e-12 * limit)
    return float(np.log(seconds / limit)), by_q * q / seconds, by_k * k / seconds


def falling_path(
    problem: Problem,
    sampling_probability: Floats,
    sketch_rank: Floats,
    deadline: float | None = None,
) -> Callable[[float], Floats]:
    """From q (at 0) to q_min (at 1): first those who alone are too slow for the limit, then all.

    Shrinking the others would not help as long as one of the slow ones joins in more than 5 % of
    the rounds.

    Args:
        problem: with or without a p95 limit.
        sampling_probability: q, shape (N,).
        sketch_rank: k, shape (N,).
        deadline: seconds of a round alone beyond which a client is slow; None: the p95 limit.
    """
    if deadline is None:
        deadline = np.inf if problem.p95_limit_seconds is None else problem.p95_limit_seconds
    alone = solo_seconds(problem.clients, problem.system, sketch_rank)
    slow = alone + problem.system.overhead_seconds > deadline
    span = np.log(problem.q_min / sampling_probability)

    def path(part: float) -> Floats:
        way = np.clip(np.where(slow, 2 * part, 2 * part - 1), 0.0, 1.0)
        return np.asarray(np.maximum(sampling_probability * np.exp(way * span), problem.q_min))

    return path


def hurried_ranks(problem: Problem, sketch_rank: Floats, share: float = _HURRIED_SHARE) -> Floats:
    """Ranks at which a client alone takes a share of the p95 limit at most, where one does."""
    limit = problem.p95_limit_seconds
    if limit is None:
        return sketch_rank
    clients, system = problem.clients, problem.system
    zero = np.zeros(len(clients))
    fixed = system.overhead_seconds + solo_seconds(clients, system, zero)
    per_rank = solo_seconds(clients, system, zero + 1) - solo_seconds(clients, system, zero)
    most = np.floor((share * limit - fixed) / per_rank)
    return np.where(most >= 1, np.minimum(most, sketch_rank), sketch_rank)


def shrink_to_p95(
    problem: Problem,
    path: Callable[[float], Floats],
    sketch_rank: Floats,
    seconds: Callable[[Floats, Floats], float] | None = None,
) -> Floats | None:
    """Go along a path of falling q until the p95 limit holds.

    The quantile falls as any q falls, so the first such point is found by bisection.

    Args:
        problem: with or without a p95 limit.
        path: q at 0 (the start) to 1 (the end), none of its entries rising.
        sketch_rank: k, shape (N,).
        seconds: (q, k) -> p95; by default what a plan would state.

    Returns:
        q, or None where even the end of the path is too slow.
    """
    limit = problem.p95_limit_seconds

    def fits(part: float) -> bool:
        if limit is None:
            return True
        if seconds is not None:
            return seconds(path(part), sketch_rank) <= limit
        return p95_seconds(problem, path(part), sketch_rank) <= limit

    if fits(0.0):
        return path(0.0)
    if not fits(1.0):
        return None
    low, high = 0.0, 1.0
    while high - low > _PATH_TOLERANCE:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return path(high)
