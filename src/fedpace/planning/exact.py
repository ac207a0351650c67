"""The planners that minimise the round-time law itself.

`exact` moves q and k together, `icc24` q alone at the largest ranks. Both start from every simple
plan, descend from the most promising (`settle`), and keep the best end; `exact` then rounds the
ranks and repairs them by whole moves while q follows.
"""

from collections.abc import Sequence

import numpy as np

from fedpace.core.profile import Floats
from fedpace.planning.baselines import TOO_SLOW, full, statistics, uniform, weighted
from fedpace.planning.limits import shrink_to_p95
from fedpace.planning.objective import (
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
_FOLLOWED = 2
"""How many are followed where clients are many; there the ends hardly differ."""
_ROUGH = 1e-5
_REPAIRS = 20


def exact(problem: Problem, start: Decision | None = None) -> Decision:
    """Minimise (round time) x (rounds) over q and k.

    Args:
        problem: the problem.
        start: a plan to begin at, alone; by default the simple plans.

    Returns:
        The decision, with evaluations, iterations, residual and the cost of rounding.
    """
    relaxed = _best_end(problem, _starts(problem, start), move_ranks=True)
    q, k = rounded_ranks(problem, relaxed.point, relaxed.q, relaxed.k)
    settled = settle(problem, q, k, move_ranks=False)
    repaired, extra = _repaired(problem, settled)
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
    starts = [
        (np.minimum(q, probability_limit(problem, most)), most) for q, _ in _starts(problem, start)
    ]
    settled = _best_end(problem, starts, move_ranks=False)
    return _decision(problem, settled, settled.evaluations, {})


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
        q = np.clip(plan.joins(), problem.q_min, probability_limit(problem, k))
        starts.append((q, k))
    return starts


def _best_end(
    problem: Problem, starts: Sequence[tuple[Floats, Floats]], *, move_ranks: bool
) -> Settled:
    """Descend roughly from the most promising starts, then to the end from the best."""
    followed = list(starts)
    evaluations = 0
    if len(problem.clients) > _FEW:
        law = exact_law(problem)
        values = [evaluate(problem, law, q, k).log_objective for q, k in starts]
        followed = [starts[i] for i in np.argsort(values, kind="stable")[:_FOLLOWED]]
        evaluations = len(starts)
    ends = [settle(problem, q, k, move_ranks=move_ranks, tolerance=_ROUGH) for q, k in followed]
    best = min(ends, key=lambda end: end.point.log_objective)
    best = settle(problem, best.q, best.k, move_ranks=move_ranks)
    evaluations += best.evaluations + sum(end.evaluations for end in ends)
    return Settled(
        best.q, best.k, best.point, evaluations, best.iterations, best.residual, best.verdict
    )


def _repaired(problem: Problem, settled: Settled) -> tuple[Settled, int]:
    """Move ranks by whole steps, many clients at once and then ever fewer, while that helps."""
    evaluations = 0
    for _ in range(_REPAIRS):
        q, k, promise = better_ranks(problem, settled.point, settled.q, settled.k)
        order = np.argsort(promise, kind="stable")
        tried = int(np.sum(promise < -_ROUGH / len(q)))
        while tried:
            moved = order[:tried]
            new_q, new_k = settled.q.copy(), settled.k.copy()
            new_q[moved], new_k[moved] = q[moved], k[moved]
            trial = settle(problem, new_q, new_k, move_ranks=False)
            evaluations += trial.evaluations
            if trial.point.log_objective < settled.point.log_objective - 1e-7:
                settled = trial
                break
            tried //= 4
        else:
            break
    return settled, evaluations


def _decision(
    problem: Problem, settled: Settled, evaluations: int, statistics: dict[str, float]
) -> Decision:
    q, k = settled.q, settled.k
    span = np.log(problem.q_min / q)
    fitting = shrink_to_p95(problem, lambda part: q * np.exp(part * span), k)
    verdict = settled.verdict
    if fitting is None:
        fitting, verdict = q, TOO_SLOW.format("even with every client at q_min")
    numbers = {"evaluations": evaluations, "kkt_residual": settled.residual, **statistics}
    return Decision(np.clip(fitting, problem.q_min, 1.0), whole(k), None, verdict, numbers)
