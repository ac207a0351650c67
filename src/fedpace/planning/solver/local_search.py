r"""The nearest local optimum of a planning problem, ranks relaxed or held.

Projected quasi-Newton (`descent`) in x = log q and y = log k. There the second derivative of the
logarithm of the objective is nearly the diagonal that both factors give client by client, the sum
of its elasticities; the few directions that couple the clients are learned. A p95 limit is kept by
a logarithmic barrier: the quantile has plateaus (a slow client that joins in more than 5 % of the
rounds alone decides it) from which no gradient leads back inside.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fedpace.core.profile import Floats
from fedpace.planning.solver.descent import Local, descend
from fedpace.planning.solver.limits import falling_path, p95_excess, p95_seconds, shrink_to_p95
from fedpace.planning.solver.objective import (
    Point,
    Problem,
    TimeLaw,
    evaluate,
    exact_law,
    probability_limit,
    rank_limit,
)
from fedpace.planning.solver.sampling import asked, within_participants

__all__ = ["LocalOptimum", "best_unlike", "inside_limit", "local_search"]

_BARRIER_WEIGHTS = (0.02, 1e-3)
"""Weights of the barrier; about what it costs in log(objective)."""
_BARRIER_TOLERANCE = 1e-5
"""A search of this tolerance or more ends with the wide barrier."""
_INSIDE_SHARE = 0.999
"""Part of the limit within which the search begins."""
_LARGEST_CORRELATION = 0.95
"""Largest correlation of q and k of one client: the exact 1 would be singular."""
_ALIKE = 1e-3
"""Starts whose log(objective) differ by less are taken for one."""

_More = TypeVar("_More")
"""What comes with each start, whatever it is."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalOptimum:
    """A local optimum."""

    q: Floats
    k: Floats
    point: Point
    evaluations: int
    iterations: int
    residual: float
    """First-order decrease of log(objective) still to be had; see `descent.residual`."""
    verdict: str


def local_search(
    problem: Problem,
    q: Floats,
    k: Floats,
    *,
    move_ranks: bool,
    tolerance: float = 1e-7,
    max_iterations: int = 200,
) -> LocalOptimum:
    """Descend from (q, k) to a local optimum.

    Args:
        problem: the problem. While ranks move, energy budgets hold as they are at the first k.
        q: sampling probabilities, shape (N,).
        k: ranks, shape (N,).
        move_ranks: whether k moves too, real-valued; else it stays.
        tolerance: predicted decrease of log(objective) at which a descent ends.
        max_iterations: of each descent.

    Returns:
        The optimum; the p95 limit is kept by the smooth law, which is not quite what a plan states.
    """
    count = len(q)
    lower = np.full(count, np.log(problem.q_min))
    upper, z = np.log(probability_limit(problem, k)), np.log(q)
    if move_ranks:
        lower = np.concatenate([lower, np.zeros(count)])
        upper = np.concatenate([upper, np.log(rank_limit(problem))])
        z = np.concatenate([z, np.log(k)])

    def split(z: Floats) -> tuple[Floats, Floats]:
        return np.exp(z[:count]), np.exp(z[count:]) if move_ranks else k

    q = within_participants(problem, q, _INSIDE_SHARE)
    limit = np.inf
    if problem.p95_limit_seconds is not None:
        q, k, limit = inside_limit(problem, q, k, move_ranks=move_ranks)
    z = np.log(np.concatenate([q, k]) if move_ranks else q)
    evaluations = iterations = 0
    # Without a limit a barrier has no effect; a search ends with the wide one.
    free = limit == np.inf and problem.max_participants is None
    ends_early = free or tolerance >= _BARRIER_TOLERANCE
    for barrier in _BARRIER_WEIGHTS[:1] if ends_early else _BARRIER_WEIGHTS:

        def make(
            near: Floats, barrier: float = barrier, limit: float = limit
        ) -> Callable[[Floats], Local]:
            law = exact_law(problem, split(near))
            return lambda at: _local(problem, law, (limit, barrier), *split(at), move_ranks)

        end = descend(make, z, lower, upper, tolerance=tolerance, max_iterations=max_iterations)
        z = end.z
        evaluations, iterations = evaluations + end.evaluations, iterations + end.iterations
    q, k = split(z)
    q = np.clip(q, problem.q_min, probability_limit(problem, k))
    point = evaluate(problem, exact_law(problem), q, k)
    return LocalOptimum(q, k, point, evaluations + 1, iterations, end.residual, end.verdict)


def best_unlike(
    starts: Iterable[tuple[float, Floats, _More]], most: int
) -> list[tuple[float, Floats, _More]]:
    """Return the best starts, those that are alike taken for one.

    Args:
        starts: log(objective), q, and what else a start has.
        most: how many, at most.
    """
    unlike: list[tuple[float, Floats, _More]] = []
    for start in sorted(starts, key=lambda start: start[0]):
        if not unlike or start[0] - unlike[-1][0] > _ALIKE:
            unlike.append(start)
    return unlike[:most]


def inside_limit(
    problem: Problem, q: Floats, k: Floats, *, move_ranks: bool, deadline: float | None = None
) -> tuple[Floats, Floats, float]:
    """Return a point that keeps the p95 limit, and the limit in terms of the smooth law there.

    The smooth law and what a plan states differ by up to a few percent.

    Args:
        problem: one with a p95 limit.
        q: sampling probabilities, shape (N,).
        k: ranks, shape (N,).
        move_ranks: whether rank 1 may be taken where nothing else keeps the limit.
        deadline: as for `falling_path`.
    """
    stated = problem.p95_limit_seconds
    assert stated is not None
    smooth = np.exp(p95_excess(problem, stated, q, k)[0])
    told = max(p95_seconds(problem, q, k), 1e-9 * stated)  # 0 s where most rounds are empty
    limit = stated * float(np.clip(smooth * stated / told, 0.8, 1.25))

    def seconds(q: Floats, k: Floats) -> float:
        return stated / _INSIDE_SHARE * float(np.exp(p95_excess(problem, limit, q, k)[0]))

    for ranks in (k, np.ones(len(k))) if move_ranks else (k,):
        fitting = shrink_to_p95(problem, falling_path(problem, q, ranks, deadline), ranks, seconds)
        if fitting is not None:
            return fitting, ranks, limit
    return np.full(len(q), problem.q_min), k, np.inf  # not even q_min keeps it, at these ranks


def _local(
    problem: Problem,
    law: TimeLaw,
    wall: tuple[float, float],
    q: Floats,
    k: Floats,
    move_ranks: bool,
) -> Local:
    """Log of the objective minus weight * log(-g), g the p95 excess over the limit of `wall`.

    And minus weight * log of the part of `max_participants` that is left.
    """
    point = evaluate(problem, law, q, k)
    value = point.log_objective
    time_by_q, time_by_k = point.time_by_q, point.time_by_k
    limit, weight = wall
    if weight > 0 and limit < np.inf:
        excess, by_q, by_k = p95_excess(problem, limit, q, k)
        if excess >= 0:
            value = np.inf
        else:
            value -= weight * float(np.log(-excess))
            pressure = weight / -excess
            time_by_q, time_by_k = time_by_q + pressure * by_q, time_by_k + pressure * by_k
    if problem.max_participants is not None:
        left = 1 - asked(problem, q) / problem.max_participants
        if left <= 0:
            value = np.inf
        else:
            value -= weight * float(np.log(left))
            count = 1.0 if problem.groups is None else problem.groups.count
            time_by_q = time_by_q + weight / left * q * count / problem.max_participants
    # Second derivatives of the model of `ranks`, client by client.
    xx = np.maximum(time_by_q, 0.0) + point.rounds_by_q + 1e-300
    if not move_ranks:
        return Local(value, time_by_q - point.rounds_by_q, xx)
    yy = np.maximum(time_by_k, 0.0) + point.rounds_by_k + 1e-300
    xy = np.clip(time_by_k, 0.0, np.maximum(time_by_q, 0.0)) + point.rounds_by_q
    gradient = np.concatenate([time_by_q - point.rounds_by_q, time_by_k - point.rounds_by_k])
    xy = np.minimum(xy, _LARGEST_CORRELATION * np.sqrt(xx * yy))
    return Local(value, gradient, np.concatenate([xx, yy]), xy)
