"""The planners that minimise the round-time law itself.

`exact` moves q and k together, `icc24` q alone at the largest ranks. Both start from every simple
plan, descend from the most promising (`local_search`), and keep the best end;
`exact` then rounds the ranks and repairs them by whole moves while q follows. With a p95 limit the
plan without it comes first: it may keep the limit, and is where the best starts lie nearby. Few
clients have a search of their own then (`late_rounds`).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedpace.core.plan import Decision
from fedpace.core.profile import Floats
from fedpace.planning.baselines import full, statistics, uniform, weighted
from fedpace.planning.paper import paper
from fedpace.planning.solver.deadlines import other_deadlines, plans_in_time
from fedpace.planning.solver.grouping import expand, grouped_problem
from fedpace.planning.solver.late_rounds import are_few, best_in_time
from fedpace.planning.solver.limits import (
    TOO_SLOW,
    falling_path,
    hurried_ranks,
    shrink_to_p95,
)
from fedpace.planning.solver.local_search import LocalOptimum, local_search
from fedpace.planning.solver.objective import (
    LARGEST_UNGROUPED,
    Problem,
    Solution,
    evaluate,
    exact_law,
    log_objective,
    probability_limit,
    rank_limit,
)
from fedpace.planning.solver.ranks import better_ranks, rounded_ranks, whole
from fedpace.planning.solver.sampling import within_participants

__all__ = ["exact", "icc24"]

_FEW_CLIENTS = 16
"""Up to this many clients every start is followed to its end."""
_STARTS_FOLLOWED = 2
"""How many are followed where clients are many; there the ends hardly differ."""
_ROUGH_TOLERANCE = 1e-5
"""Tolerance of log(objective) while the starts are told apart."""
_BRIEF_TOLERANCE = 3e-5
"""Tolerance of log(objective) at the end of a brief search."""
_BRIEF_BEYOND_CLIENTS = 200
"""Beyond so many clients the search from a given plan is brief."""
_DESCENT_ITERATIONS = 200
"""Iterations of a descent, at most."""
_GROUPED_ITERATIONS = 20
"""Iterations on all clients after a plan of groups, at most."""
_BRIEF_ITERATIONS = 6
"""Iterations of a brief search, at most: after ranks are moved, and of other deadlines."""
_MOST_REPAIRS = 8
"""Times that ranks are moved, at most."""
_COSTLY_LOG_OBJECTIVE = 1e-3
"""Cost of rounding, in log(objective), from which clients are tried one by one."""
_INFLUENTIAL_CLIENTS = 8
"""How many clients are then tried."""
_WORTH_LOG_OBJECTIVE = 2e-5
"""Decrease of log(objective) for which ranks are still moved."""
_RANK_PARTS = (0.0, 0.25, 0.5)
"""Parts of the ranks without a limit that few clients with one begin at, too; at least rank 1."""
_LIMIT_SHARES = (0.9, 1.0 - 1e-9)
"""Parts of a p95 limit that each of few clients may take alone: with room for others, just in
time."""
_DEADLINES_BEYOND_CLIENTS = 1000
"""Beyond so many clients other deadlines are tried."""
_DEADLINES_FOLLOWED = 2
"""How many of the deadlines tried are followed to an end."""
_DEADLINE_PASSES = 4
"""How often other deadlines are tried."""
_GLANCE_TOLERANCE = 1e-4
"""Tolerance of log(objective) in that, and the least gain for which it goes on."""


def exact(problem: Problem, start: Decision | None = None) -> Solution:
    """Minimise (round time) x (rounds) over q and k.

    Where clients are many, groups of similar ones are planned for first (`grouped_problem`), and
    the plan of the members is refined in a few iterations.

    Args:
        problem: the problem.
        start: a plan to begin at, alone; by default the simple plans.

    Returns:
        The decision, with evaluations, iterations, residual and the cost of rounding.
    """
    return _with_limit(problem, start, move_ranks=True)


def icc24(problem: Problem, start: Decision | None = None) -> Solution:
    """Minimise (round time) x (rounds) over q, every rank at its largest.

    What Geng et al., "Adaptive heterogeneous client sampling for federated learning over wireless
    networks" (arXiv 2404.13804) and their ICC 2024 paper on independent sampling (arXiv
    2402.10097) optimise: who takes part, without sketching. Ours: the exact law in the place of
    their bound on the round time, so that this differs from `exact` by the ranks alone.
    """
    return _with_limit(problem, start, move_ranks=False)


def _with_limit(problem: Problem, start: Decision | None, *, move_ranks: bool) -> Solution:
    """The plan without the p95 limit where there is none, or where that keeps it anyway.

    Else what is found from there. Under a quantile the plan without may keep the limit and not be
    the best one that does.
    """
    planner = _exact if move_ranks else _icc24
    if problem.p95_limit_seconds is None:
        return planner(problem, start, None)
    free = planner(replace(problem, p95_limit_seconds=None, made={}), start, None)
    q, k = free.decision.sampling_probability, free.decision.sketch_rank.astype(np.float64)
    keeps = shrink_to_p95(problem, lambda part: q, k) is not None
    if keeps and problem.quantile is None:
        return free
    if are_few(problem):
        return _in_time(problem, free, keeps=keeps, move_ranks=move_ranks)
    return planner(problem, start, free)


def _exact(problem: Problem, start: Decision | None, free: Solution | None) -> Solution:
    """`exact`; `free` is the plan without the p95 limit, if there is one."""
    relaxed = _relaxed(problem, start, move_ranks=True, free=free)
    rounded = [rounded_ranks(problem, relaxed.point, relaxed.q, relaxed.k)]
    brief = _briefly(problem, start)
    if problem.quantile is not None and not brief:
        # A quantile jumps where one client more decides it, which the model of `ranks` does not
        # know: fewer bits, and the simple plans, whose ranks are whole, may be on the better side.
        rounded += [(relaxed.q, np.floor(relaxed.k)), *_starts(problem, start)]
        optimum = _best_end(
            problem, _promising(problem, rounded), _fine(problem, start), move_ranks=False
        )
    else:
        optimum = local_search(
            problem, *rounded[0], move_ranks=False, tolerance=_fine(problem, start),
            max_iterations=_BRIEF_ITERATIONS if brief else _DESCENT_ITERATIONS,
        )  # fmt: skip
    repaired, extra = optimum, 0
    if brief:  # the last iterations are few on purpose
        repaired = replace(optimum, verdict=relaxed.verdict)
    else:
        repaired, extra = _repaired(problem, optimum, relaxed.point.log_objective)
    cost = repaired.point.log_objective - relaxed.point.log_objective
    return _solution(
        problem, repaired,
        relaxed.evaluations + optimum.evaluations + extra, {"rounding_cost": float(np.expm1(cost))},
    )  # fmt: skip


def _icc24(problem: Problem, start: Decision | None, free: Solution | None) -> Solution:
    """`icc24`, likewise."""
    optimum = _relaxed(problem, start, move_ranks=False, free=free)
    return _solution(problem, optimum, optimum.evaluations, {})


def _in_time(problem: Problem, made: Solution, *, keeps: bool, move_ranks: bool) -> Solution:
    """The plan of few clients with a p95 limit, from the plans without one.

    At ranks as they are and as a limit advises. This search is the better one for a quantile, so
    there the plan without, `made`, must be better than what it finds.
    """
    free = replace(problem, p95_limit_seconds=None, made={})
    q, k = made.decision.sampling_probability, made.decision.sketch_rank.astype(np.float64)
    plans = [(q, k), *_starts(free, None)]
    if move_ranks:
        plans += [(q, hurried_ranks(problem, k, s)) for q, k in plans for s in _LIMIT_SHARES] + [
            (q, np.maximum(1.0, np.floor(k * part))) for part in _RANK_PARTS
        ]
    plans = list({(q.tobytes(), k.tobytes()): (q, k) for q, k in plans}.values())
    best = best_in_time(problem, plans, move_ranks=move_ranks)
    if best is None:
        return Solution(made.decision, TOO_SLOW.format("even with every client at q_min"))
    if keeps and log_objective(problem, made.decision) <= best.point.log_objective:
        return made
    evaluations = best.evaluations + int(made.statistics["evaluations"])
    return _solution(problem, best, evaluations, {})


def _relaxed(
    problem: Problem,
    start: Decision | None,
    *,
    move_ranks: bool,
    free: Solution | None = None,
) -> LocalOptimum:
    """The best local optimum that is found, ranks real-valued or at their largest."""
    many = len(problem.clients) > LARGEST_UNGROUPED and start is None
    if many:
        by_group, groups = grouped_problem(problem)
        end = _relaxed(by_group, None, move_ranks=move_ranks)
        starts = [expand(problem, groups, end.q, end.k)]
    else:
        starts = _starts(problem, start)
    near = _starts(problem, free.decision) if free and start is None and not many else []
    if not move_ranks:
        most = rank_limit(problem)
        starts, near = (
            [(np.minimum(q, probability_limit(problem, most)), most) for q, _ in plans]
            for plans in (starts, near)
        )
    if near:
        starts = near + plans_in_time(problem, [*starts, *near], move_ranks=move_ranks)
    else:
        starts = _promising(problem, starts)
    best = _best_end(problem, starts, _fine(problem, start), move_ranks=move_ranks)
    if many or start is not None or len(problem.clients) <= _DEADLINES_BEYOND_CLIENTS:
        return best
    return _best_deadline(problem, best, move_ranks=move_ranks)


def _best_deadline(problem: Problem, best: LocalOptimum, *, move_ranks: bool) -> LocalOptimum:
    """Try other deadlines than that of a local optimum while that helps."""
    law, evaluations = exact_law(problem), best.evaluations
    for _ in range(_DEADLINE_PASSES):
        plans = other_deadlines(problem, best.q, best.k)
        values = [evaluate(problem, law, q, k).log_objective for q, k in plans]
        ends = [
            local_search(
                problem,
                *plans[i],
                move_ranks=move_ranks,
                tolerance=_GLANCE_TOLERANCE,
                max_iterations=_BRIEF_ITERATIONS,
            )
            for i in np.argsort(values, kind="stable")[:_DEADLINES_FOLLOWED]
        ]
        evaluations += len(plans) + sum(end.evaluations for end in ends)
        end = min(ends, key=lambda end: end.point.log_objective)
        if end.point.log_objective > best.point.log_objective - _GLANCE_TOLERANCE:
            break
        best = local_search(
            problem, end.q, end.k, move_ranks=move_ranks, tolerance=_fine(problem),
            max_iterations=_DESCENT_ITERATIONS,
        )  # fmt: skip
        evaluations += best.evaluations
    return replace(best, evaluations=evaluations)


def _starts(problem: Problem, start: Decision | None) -> list[tuple[Floats, Floats]]:
    if start is not None:
        plans = [start]
    else:
        plans = [make(problem).decision for make in (paper, statistics, weighted, uniform)]
        if len(problem.clients) <= _FEW_CLIENTS:
            plans.append(full(problem).decision)
    most = rank_limit(problem)
    starts = []
    for plan in plans:
        k = np.minimum(plan.sketch_rank.astype(np.float64), most)
        starts.append(
            (
                np.clip(
                    plan.participation_probability(), problem.q_min, probability_limit(problem, k)
                ),
                k,
            )
        )
    if problem.p95_limit_seconds is not None:  # a slow client can send less, or join less often
        hurried = [(q, hurried_ranks(problem, k)) for q, k in starts]
        starts += [h for h, s in zip(hurried, starts, strict=True) if np.any(h[1] != s[1])]
    return starts


def _promising(
    problem: Problem, starts: Sequence[tuple[Floats, Floats]]
) -> list[tuple[Floats, Floats]]:
    """Those to follow: all of few clients, else the best as they are."""
    if len(starts) <= _STARTS_FOLLOWED or len(problem.clients) <= _FEW_CLIENTS:
        return list(starts)
    law = exact_law(problem)
    values = [evaluate(problem, law, q, k).log_objective for q, k in starts]
    return [starts[i] for i in np.argsort(values, kind="stable")[:_STARTS_FOLLOWED]]


def _best_end(
    problem: Problem,
    starts: Sequence[tuple[Floats, Floats]],
    tolerance: float,
    *,
    move_ranks: bool,
) -> LocalOptimum:
    """Descend roughly from each start, then to the end from the best."""
    followed, evaluations = list(starts), 0
    if len(followed) > 1:
        ends = [
            local_search(problem, q, k, move_ranks=move_ranks, tolerance=_ROUGH_TOLERANCE)
            for q, k in followed
        ]
        evaluations += sum(end.evaluations for end in ends)
        best = min(ends, key=lambda end: end.point.log_objective)
        followed = [(best.q, best.k)]
    best = local_search(
        problem, *followed[0], move_ranks=move_ranks, tolerance=tolerance,
        max_iterations=(
            _GROUPED_ITERATIONS if len(problem.clients) > LARGEST_UNGROUPED
            else _DESCENT_ITERATIONS
        ),
    )  # fmt: skip
    return replace(best, evaluations=best.evaluations + evaluations)


def _briefly(problem: Problem, start: Decision | None) -> bool:
    """Whether to stop near the optimum: clients are many, or hundreds are planned for again."""
    return len(problem.clients) > (LARGEST_UNGROUPED if start is None else _BRIEF_BEYOND_CLIENTS)


def _fine(problem: Problem, start: Decision | None = None) -> float:
    """Tolerance of log(objective) at the end; looser for thousands, whose law is coarser too."""
    if _briefly(problem, start):
        return _BRIEF_TOLERANCE
    return float(np.clip(1e-10 * len(problem.clients), 1e-7, _ROUGH_TOLERANCE))


def _repaired(problem: Problem, optimum: LocalOptimum, relaxed: float) -> tuple[LocalOptimum, int]:
    """Move whole ranks by one while that helps.

    First many clients at once, as the model of `ranks` advises, and ever fewer; then, if rounding
    has cost much, each of the few clients that matter most, whatever the model says.
    """
    evaluations = 0

    def tried(moved: NDArray[np.int64], q: Floats, k: Floats) -> bool:
        nonlocal optimum, evaluations
        new_q, new_k = optimum.q.copy(), optimum.k.copy()
        new_q[moved], new_k[moved] = q[moved], k[moved]
        trial = local_search(
            problem, new_q, new_k, move_ranks=False, tolerance=_fine(problem),
            max_iterations=_BRIEF_ITERATIONS,
        )  # fmt: skip
        evaluations += trial.evaluations
        helps = trial.point.log_objective < optimum.point.log_objective - _WORTH_LOG_OBJECTIVE / 10
        optimum = trial if helps else optimum
        return helps

    for _ in range(_MOST_REPAIRS):
        q, k, promise = better_ranks(problem, optimum.point, optimum.q, optimum.k)
        order = np.argsort(promise, kind="stable")
        count = int(np.sum(promise < 0))
        while count and -np.sum(promise[order[:count]]) > _WORTH_LOG_OBJECTIVE:
            if tried(order[:count], q, k):
                break
            count //= 4
        else:
            break
    for _ in range(_MOST_REPAIRS):
        before = optimum.point.log_objective
        if before - relaxed < _COSTLY_LOG_OBJECTIVE:
            break
        weight = np.abs(optimum.point.time_by_k) + optimum.point.rounds_by_k
        for n in np.argsort(-weight, kind="stable")[:_INFLUENTIAL_CLIENTS]:
            for step in (-1.0, 1.0):
                k = np.clip(optimum.k + step, 1.0, rank_limit(problem))
                q = np.clip(optimum.q * optimum.k / k, problem.q_min, probability_limit(problem, k))
                if k[n] != optimum.k[n]:
                    tried(np.array([n]), q, k)
        if optimum.point.log_objective > before - _WORTH_LOG_OBJECTIVE:
            break
    return optimum, evaluations


def _solution(
    problem: Problem, optimum: LocalOptimum, evaluations: int, statistics: dict[str, float]
) -> Solution:
    q, k = optimum.q, optimum.k
    q = within_participants(problem, q)
    fitting = shrink_to_p95(problem, falling_path(problem, q, k), k)
    verdict = optimum.verdict
    if fitting is None:
        fitting, verdict = q, TOO_SLOW.format("even with every client at q_min")
    numbers = {"evaluations": evaluations, "kkt_residual": optimum.residual, **statistics}
    return Solution(Decision(np.clip(fitting, problem.q_min, 1.0), whole(k)), verdict, numbers)
