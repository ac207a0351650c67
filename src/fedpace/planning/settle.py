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
_COUPLING = 0.95
"""Largest correlation of q and k of one client: the exact 1 would be singular."""


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
    value = point.log_objective
    time_by_q, time_by_k = point.time_by_q, point.time_by_k
    multiplier, weight = by
    if weight > 0:
        excess, by_q, by_k = p95_excess(problem, q, k)
        pressure = max(0.0, multiplier + weight * excess)
        value += (pressure**2 - multiplier**2) / (2 * weight)
        time_by_q, time_by_k = time_by_q + pressure * by_q, time_by_k + pressure * by_k
    # Second derivatives of the model of `ranks`, client by client.
    xx = np.maximum(time_by_q, 0.0) + point.rounds_by_q + 1e-300
    if not move_ranks:
        return Local(value, time_by_q - point.rounds_by_q, xx)
    yy = np.maximum(time_by_k, 0.0) + point.rounds_by_k + 1e-300
    xy = np.clip(time_by_k, 0.0, np.maximum(time_by_q, 0.0)) + point.rounds_by_q
    gradient = np.concatenate([time_by_q - point.rounds_by_q, time_by_k - point.rounds_by_k])
    xy = np.minimum(xy, _COUPLING * np.sqrt(xx * yy))
    return Local(value, gradient, np.concatenate([xx, yy]), xy)
