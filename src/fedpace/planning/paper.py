r"""The planner of the method's source: bounds on both factors, convex steps in between.

arXiv 2505.23555 states a non-convex joint problem over sampling probabilities and sketching
ratios and solves it approximately at low complexity; its ICC 2024 forerunner (arXiv 2402.10097)
does so "by bounding per-round time and transforming it into a convex subproblem". Both abstracts
were at hand, not the algorithm: what follows is this recipe as derived in docs/theory.md, with the
upper bound of `time_bound` in the place of the mean round time.

For a budget M of round time the best q minimises V = sum c_n / q_n subject to
sum w_n q_n <= M - const, w_n the derivative of the bound: convex, solved by water-filling. An outer
line search finds the budget, and q and k alternate. Every step costs O(N).
"""

import numpy as np
from scipy.optimize import minimize_scalar

from fedpace.core.plan import Decision
from fedpace.core.profile import Floats
from fedpace.planning.round_time.upper_bound import solo_seconds
from fedpace.planning.solver.grouping import expand, grouped_problem
from fedpace.planning.solver.limits import TOO_SLOW, falling_path, shrink_to_p95
from fedpace.planning.solver.objective import (
    LARGEST_UNGROUPED,
    Point,
    Problem,
    Solution,
    bound_law,
    evaluate,
    probability_limit,
    rank_limit,
)
from fedpace.planning.solver.ranks import relaxed_ranks, rounded_ranks, whole
from fedpace.planning.solver.sampling import best_scale, fill, within_participants

__all__ = ["paper"]

_DEADLINE_SHARES = (0.5, 0.7, 0.85, 0.95, 0.99, 1.0)
"""Shares of the clients that are faster than the deadlines tried."""
_LEAST_DIRECTION = 1e-12
"""Least entry of a direction, over its largest."""
_MAX_ITERATIONS = 60
"""Iterations after which it gives up."""
_TOLERANCE = 1e-6
"""Ends when one iteration lowers the logarithm of the objective by less."""
_GROUPED_TOLERANCE = 1e-4
"""The same where the round time is that of groups."""
_BY_MEAN_NOTE = "; planned by the mean round time, the quantile is not used"
"""What is added to the verdict where a quantile is asked for."""


def paper(problem: Problem, start: Decision | None = None) -> Solution:
    """Minimise (upper bound on the round time) x (rounds) by alternating convex steps.

    The bound knows no quantile: a p95 limit is kept by falling q once the steps are done.

    Args:
        problem: the problem; a quantile that it asks for is left to the planner `exact`.
        start: where to begin; by default at the best of a few simple plans.

    Returns:
        The decision; its verdict says whether the steps converged, and that a quantile was not
        used; "infeasible" where not even q_min keeps the p95 limit.
    """
    made = _alternated(problem, start)
    q, ranks = made.decision.sampling_probability, made.decision.sketch_rank
    k, verdict = ranks.astype(np.float64), made.verdict
    fitting = shrink_to_p95(problem, falling_path(problem, q, k), k)
    if fitting is None:
        fitting, verdict = q, TOO_SLOW.format("even with every client at q_min")
    elif problem.quantile is not None:
        verdict += _BY_MEAN_NOTE
    return Solution(Decision(fitting, ranks), verdict, made.statistics)


def _alternated(problem: Problem, start: Decision | None) -> Solution:
    """What the steps come to, without the p95 limit."""
    law, tolerance = bound_law(problem), _TOLERANCE
    if len(problem.clients) > LARGEST_UNGROUPED:
        tolerance = _GROUPED_TOLERANCE
        if start is None:
            by_group, groups = grouped_problem(problem)
            made = _alternated(by_group, None).decision
            ranks = made.sketch_rank.astype(np.float64)
            q, k = expand(problem, groups, made.sampling_probability, ranks)
            start = Decision(q, whole(k))
    if start is None:
        k = rank_limit(problem)
        q, point = _beginning(problem, k)
    else:
        k = np.minimum(start.sketch_rank.astype(np.float64), rank_limit(problem))
        q = np.clip(start.sampling_probability, problem.q_min, probability_limit(problem, k))
        q = within_participants(problem, q)
        point = evaluate(problem, law, q, k)
    verdict, iterations = "iteration cap", 0
    while iterations < _MAX_ITERATIONS:
        iterations += 1
        before = point.log_objective
        q, k, point = _improved(problem, point, (q, k), _filled(problem, point, q, k), k)
        ranks = relaxed_ranks(problem, point, k)
        q, k, point = _improved(problem, point, (q, k), q, ranks)
        if before - point.log_objective < tolerance:
            verdict = "converged"
            break
    q, k = rounded_ranks(problem, point, q, k)
    q = within_participants(problem, q)
    for _ in range(3):
        point = evaluate(problem, law, q, k)
        q, _, point = _improved(problem, point, (q, k), _filled(problem, point, q, k), k)
    return Solution(Decision(q, whole(k)), verdict, {"iterations": iterations})


def _beginning(problem: Problem, k: Floats) -> tuple[Floats, Point]:
    """The best of a few simple plans, by the bound: deadlines, each with its best scale.

    As long as many slow clients take part, one of them less changes nothing, so no small step leads
    away from there: whoever is slower than the deadline is left out, almost, from the start.
    """
    clients, law = problem.clients, bound_law(problem)
    alone = solo_seconds(clients, problem.system, k)
    shape = np.sqrt(clients.data_weight**2 * clients.update_second_moment / alone)
    shape = np.maximum(shape / shape.max(), _LEAST_DIRECTION)
    plans = [best_scale(problem, law, np.ones(len(k)), k)]
    for deadline in np.unique(np.quantile(alone, _DEADLINE_SHARES, method="higher")):
        plans.append(
            best_scale(problem, law, np.where(alone <= deadline, shape, _LEAST_DIRECTION), k)
        )
    if problem.max_participants is not None:
        fitting = [within_participants(problem, q) for q, _ in plans]
        plans = [(q, evaluate(problem, law, q, k)) for q in fitting]
    return min(plans, key=lambda plan: plan[1].log_objective)


def _filled(problem: Problem, point: Point, q: Floats, k: Floats) -> Floats:
    """The best q for the best budget, at the prices of this point."""
    lower, upper = np.full(len(q), problem.q_min), probability_limit(problem, k)
    # In units of the seconds and rounds of this point both are sums over clients plus a constant.
    price, reward = point.time_by_q / q, point.rounds_by_q * q
    time_rest, rounds_rest = 1 - price @ q, 1 - reward @ (1 / q)

    def filled(log_level: float) -> Floats:
        level = float(np.exp(log_level))
        return within_participants(problem, fill(reward, price, level, lower, upper))

    def at(log_level: float) -> float:
        new = filled(log_level)
        return float(np.log(time_rest + price @ new) + np.log(rounds_rest + reward @ (1 / new)))

    best = minimize_scalar(at, bounds=(-12.0, 12.0), method="bounded", options={"xatol": 1e-3})
    return filled(best.x)


def _improved(
    problem: Problem, point: Point, at: tuple[Floats, Floats], q: Floats, k: Floats
) -> tuple[Floats, Floats, Point]:
    """Go to (q, k), or as much of the way, in logarithms, as lowers the objective."""
    law = bound_law(problem)
    for _ in range(6):
        q = np.minimum(q, probability_limit(problem, k))
        there = evaluate(problem, law, q, k)
        if there.log_objective <= point.log_objective:
            return q, k, there
        q, k = np.sqrt(q * at[0]), np.sqrt(k * at[1])
    return *at, point
