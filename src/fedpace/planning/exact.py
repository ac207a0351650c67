"""The planners that minimise the round-time law itself.

`exact` moves q and k together, `icc24` q alone at the largest ranks. Both start from every simple
plan, descend from the most promising (`settle`), and keep the best end; `exact` then rounds the
ranks and repairs them by whole moves while q follows.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedpace.core.profile import Floats
from fedpace.planning.baselines import TOO_SLOW, full, statistics, uniform, weighted
from fedpace.planning.condense import condense, expand
from fedpace.planning.limits import falling_path, hurried_ranks, shrink_to_p95
from fedpace.planning.objective import (
    CROWD,
    Decision,
    Problem,
    evaluate,
    exact_law,
    probability_limit,
    rank_limit,
)
from fedpace.planning.paper import paper
from fedpace.planning.ranks import better_ranks, rounded_ranks, whole
from fedpace.planning.settle import Settled, settle

__all__ = ["exact", "icc24"]

_FEW = 16
"""Up to this many clients every start is followed to its end."""
_MANY = 2000
"""Beyond so many clients the plan for groups of them and `paper` are the starts."""
_FOLLOWED = 2
"""How many are followed where clients are many; there the ends hardly differ."""
_ROUGH = 1e-5
"""Tolerance of log(objective) while the starts are told apart."""
_REPAIRS = 8
"""Times that ranks are moved, at most, and iterations of q after each move."""
_BRIEF = 6
_COSTLY, _INFLUENTIAL = 1e-3, 8
"""Cost of rounding, in log(objective), from which so many clients are tried one by one."""
_WORTH = 2e-5
"""Decrease of log(objective) for which ranks are still moved."""


def exact(problem: Problem, start: Decision | None = None) -> Decision:
    """Minimise (round time) x (rounds) over q and k.

    Where clients are many, groups of similar ones are planned for first (`condense`). In a crowd,
    members of a group keep its rank and only their q are settled.

    Args:
        problem: the problem.
        start: a plan to begin at, alone; by default the simple plans.

    Returns:
        The decision, with evaluations, iterations, residual and the cost of rounding.
    """
    many = len(problem.clients) > _MANY and start is None
    starts = _condensed_start(problem, exact) if many else _starts(problem, start)
    move_ranks = len(problem.clients) <= CROWD
    relaxed = _best_end(problem, starts, move_ranks=move_ranks)
    q, k = rounded_ranks(problem, relaxed.point, relaxed.q, relaxed.k)
    settled = settle(problem, q, k, move_ranks=False, tolerance=_fine(problem))
    repaired, extra = settled, 0
    if move_ranks:
        repaired, extra = _repaired(problem, settled, relaxed.point.log_objective)
    cost = repaired.point.log_objective - relaxed.point.log_objective
    return _decision(
        problem, repaired,
        relaxed.evaluations + settled.evaluations + extra, {"rounding_cost": float(np.expm1(cost))},
    )  # fmt: skip


def icc24(problem: Problem, start: Decision | None = None) -> Decision:
    """Minimise (round time) x (rounds) over q, every rank at its largest.

    What Geng et al., "Adaptive heterogeneous client sampling for federated learning over wireless
    networks" (arXiv 2404.13804) and their ICC 2024 paper on independent sampling (arXiv
    2402.10097) optimise: who takes part, without sketching. Ours: the exact law in the place of
    their bound on the round time, so that this differs from `exact` by the ranks alone.
    """
    most = rank_limit(problem)
    many = len(problem.clients) > _MANY and start is None
    starts = _condensed_start(problem, icc24) if many else _starts(problem, start)
    starts = [(np.minimum(q, probability_limit(problem, most)), most) for q, _ in starts]
    settled = _best_end(problem, starts, move_ranks=False)
    return _decision(problem, settled, settled.evaluations, {})


def _condensed_start(
    problem: Problem, planner: Callable[[Problem], Decision]
) -> list[tuple[Floats, Floats]]:
    """The plan for groups of similar clients, given to the members; and `paper`."""
    condensed, groups = condense(problem)
    made = paper(problem)
    return [
        expand(problem, groups, planner(condensed)),
        (made.sampling_probability, made.sketch_rank.astype(np.float64)),
    ]


def _starts(problem: Problem, start: Decision | None) -> list[tuple[Floats, Floats]]:
    if start is not None:
        plans = [start]
    else:
        plans = [make(problem) for make in (paper, statistics, weighted, uniform)]
        if len(problem.clients) <= _FEW:
            plans.append(full(problem))
    most = rank_limit(problem)
    starts = []
    for plan in plans:
        k = np.minimum(plan.sketch_rank.astype(np.float64), most)
        starts.append((np.clip(plan.joins(), problem.q_min, probability_limit(problem, k)), k))
    if problem.p95_limit_seconds is not None:  # a slow client can send less, or join less often
        hurried = [(q, hurried_ranks(problem, k)) for q, k in starts]
        starts += [h for h, s in zip(hurried, starts, strict=True) if np.any(h[1] != s[1])]
    return starts


def _best_end(
    problem: Problem, starts: Sequence[tuple[Floats, Floats]], *, move_ranks: bool
) -> Settled:
    """Descend roughly from the most promising starts, then to the end from the best."""
    followed = list(starts)
    evaluations = 0
    if len(starts) > _FOLLOWED and len(problem.clients) > _FEW:
        law = exact_law(problem)
        values = [evaluate(problem, law, q, k).log_objective for q, k in starts]
        followed = [starts[i] for i in np.argsort(values, kind="stable")[:_FOLLOWED]]
        evaluations = len(starts)
    ends = [settle(problem, q, k, move_ranks=move_ranks, tolerance=_ROUGH) for q, k in followed]
    best = min(ends, key=lambda end: end.point.log_objective)
    fine = _fine(problem)
    best = settle(problem, best.q, best.k, move_ranks=move_ranks, tolerance=fine)
    evaluations += best.evaluations + sum(end.evaluations for end in ends)
    return Settled(
        best.q, best.k, best.point, evaluations, best.iterations, best.residual, best.verdict
    )


def _fine(problem: Problem) -> float:
    """Tolerance of log(objective) at the end; looser for thousands, whose law is coarser too."""
    return float(np.clip(1e-10 * len(problem.clients), 1e-7, _ROUGH))


def _repaired(problem: Problem, settled: Settled, relaxed: float) -> tuple[Settled, int]:
    """Move whole ranks by one while that helps.

    First many clients at once, as the model of `ranks` advises, and ever fewer; then, if rounding
    has cost much, each of the few clients that matter most, whatever the model says.
    """
    evaluations = 0

    def tried(moved: NDArray[np.int64], q: Floats, k: Floats) -> bool:
        nonlocal settled, evaluations
        new_q, new_k = settled.q.copy(), settled.k.copy()
        new_q[moved], new_k[moved] = q[moved], k[moved]
        trial = settle(
            problem, new_q, new_k, move_ranks=False, tolerance=_fine(problem),
            max_iterations=_BRIEF,
        )  # fmt: skip
        evaluations += trial.evaluations
        helps = trial.point.log_objective < settled.point.log_objective - _WORTH / 10
        settled = trial if helps else settled
        return helps

    for _ in range(_REPAIRS):
        q, k, promise = better_ranks(problem, settled.point, settled.q, settled.k)
        order = np.argsort(promise, kind="stable")
        count = int(np.sum(promise < 0))
        while count and -np.sum(promise[order[:count]]) > _WORTH:
            if tried(order[:count], q, k):
                break
            count //= 4
        else:
            break
    for _ in range(_REPAIRS):
        before = settled.point.log_objective
        if before - relaxed < _COSTLY:
            break
        weight = np.abs(settled.point.time_by_k) + settled.point.rounds_by_k
        for n in np.argsort(-weight, kind="stable")[:_INFLUENTIAL]:
            for step in (-1.0, 1.0):
                k = np.clip(settled.k + step, 1.0, rank_limit(problem))
                q = np.clip(settled.q * settled.k / k, problem.q_min, probability_limit(problem, k))
                if k[n] != settled.k[n]:
                    tried(np.array([n]), q, k)
        if settled.point.log_objective > before - _WORTH:
            break
    return settled, evaluations


def _decision(
    problem: Problem, settled: Settled, evaluations: int, statistics: dict[str, float]
) -> Decision:
    q, k = settled.q, settled.k
    fitting = shrink_to_p95(problem, falling_path(problem, q, k), k)
    verdict = settled.verdict
    if fitting is None:
        fitting, verdict = q, TOO_SLOW.format("even with every client at q_min")
    numbers = {"evaluations": evaluations, "kkt_residual": settled.residual, **statistics}
    return Decision(np.clip(fitting, problem.q_min, 1.0), whole(k), None, verdict, numbers)
