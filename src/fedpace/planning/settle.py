r"""The nearest local optimum of a planning problem, ranks relaxed or held.

Projected quasi-Newton (`descent`) in x = log q and y = log k. There the second derivative of the
logarithm of the objective is nearly the diagonal that both factors give client by client, the sum
of its elasticities; the few directions that couple the clients are learned. A p95 limit enters as
an augmented Lagrangian term (Nocedal and Wright, Numerical Optimization, section 17.4).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedpace.core.profile import Floats
from fedpace.planning.descent import Local, descend
from fedpace.planning.limits import p95_excess
from fedpace.planning.objective import (
    Point,
    Problem,
    TimeLaw,
    evaluate,
    exact_law,
    probability_limit,
    rank_limit,
)

__all__ = ["Settled", "settle"]

_UPDATES = 12
"""Of the multiplier, at most."""
_FEASIBLE = 1e-4
"""Excess over the limit, as a logarithm, at which the updates end."""
_PENALTY = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """A local optimum."""

    q: Floats
    k: Floats
    point: Point
    evaluations: int
    iterations: int
    residual: float
    """First-order decrease of log(objective) still to be had; see `descent.residual`."""
    verdict: str


def settle(
    problem: Problem,
    q: Floats,
    k: Floats,
    *,
    move_ranks: bool,
    tolerance: float = 1e-7,
    max_iterations: int = 200,
) -> Settled:
    """Descend from (q, k) to a local optimum.

    Args:
        problem: the problem. While ranks move, energy budgets hold as they are at the first k.
        q: sampling probabilities, shape (N,).
        k: ranks, shape (N,).
        move_ranks: whether k moves too, real-valued; else it stays.
        tolerance: predicted decrease of log(objective) at which a descent ends.
        max_iterations: of each descent.

    Returns:
        The optimum; the p95 limit may be exceeded by 0.01 %.
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

    multiplier = weight = 0.0
    evaluations = iterations = 0
    for _ in range(_UPDATES):

        def make(
            near: Floats, by: tuple[float, float] = (multiplier, weight)
        ) -> Callable[[Floats], Local]:
            law = exact_law(problem, split(near))
            return lambda at: _lagrangian(problem, law, by, *split(at), move_ranks)

        end = descend(make, z, lower, upper, tolerance=tolerance, max_iterations=max_iterations)
        z = end.z
        evaluations, iterations = evaluations + end.evaluations, iterations + end.iterations
        if problem.p95_limit_seconds is None:
            break
        excess = p95_excess(problem, *split(z))[0]
        multiplier, before = max(0.0, multiplier + weight * excess), multiplier
        if excess <= _FEASIBLE and (multiplier == before or excess > -_FEASIBLE):
            break
        weight = _PENALTY
    q, k = split(z)
    q = np.clip(q, problem.q_min, probability_limit(problem, k))
    point = evaluate(problem, exact_law(problem), q, k)
    return Settled(q, k, point, evaluations + 1, iterations, end.residual, end.verdict)


def _lagrangian(
    problem: Problem,
    law: TimeLaw,
    by: tuple[float, float],
    q: Floats,
    k: Floats,
    move_ranks: bool,
) -> Local:
    """Log of the objective plus (max(0, lambda + mu g)^2 - lambda^2) / (2 mu), g the p95 excess."""
    point = evaluate(problem, law, q, k)
    time, rounds = [point.time_by_q], [point.rounds_by_q]
    if move_ranks:
        time, rounds = [*time, point.time_by_k], [*rounds, point.rounds_by_k]
    up, down = np.concatenate(time), np.concatenate(rounds)
    value, gradient, curvature = point.log_objective, up - down, np.maximum(up, 0.0) + down
    multiplier, weight = by
    if weight > 0:
        excess, by_q, by_k = p95_excess(problem, q, k)
        slope = np.concatenate([by_q, by_k]) if move_ranks else by_q
        pressure = max(0.0, multiplier + weight * excess)
        value += (pressure**2 - multiplier**2) / (2 * weight)
        gradient = gradient + pressure * slope
        curvature = curvature + pressure * np.abs(slope)
    return Local(value, gradient, np.maximum(curvature, 1e-300))
