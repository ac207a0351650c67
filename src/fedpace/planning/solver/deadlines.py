r"""Plans with another deadline: who is waited for, and who hardly ever asked.

Where many take part, one slow client more or less changes nothing as long as others as slow take
part too. So each round time that slow clients do not exceed has a local optimum of its own, and no
small step leads from one to the next: below it a client takes part as it is worth, and above it
with q so small that, most of the time, nobody there does. At the marginal price of such a client,
its time alone beyond the deadline, the best q is

.. math:: q_n = \sqrt{\frac{n_n}{1 + \sum n / q} \frac{D}{u_n - D}},

n_n its noise, u_n its time alone, D the deadline (water-filling, as in `sampling.fill`).

A p95 limit has as many: of the slow clients some send less and are in time, the others hardly ever
join.
"""

from collections.abc import Sequence

import numpy as np

from fedpace.core.profile import Floats
from fedpace.planning.round_time.upper_bound import solo_seconds
from fedpace.planning.solver.limits import hurried_ranks
from fedpace.planning.solver.local_search import best_unlike, inside_limit
from fedpace.planning.solver.objective import (
    Problem,
    evaluate,
    exact_law,
    noise_weight,
    probability_limit,
    rank_limit,
)

__all__ = ["other_deadlines", "plans_in_time"]

_DEADLINE_MULTIPLES = (0.65, 0.75, 0.82, 0.88, 0.94, 1.06, 1.12, 1.2, 1.35)
"""Deadlines tried, as multiples of the present one."""
_LATE_PARTICIPANTS = 0.7
"""Slower than the deadline: the slowest who together join so many times a round, or less."""
_TIME_SHARES = (0.5, 0.75, 1.0 - 1e-9)
"""Parts of a p95 limit that each client may take alone, besides the one of `hurried_ranks`."""
_DEADLINE_SHARES = (0.5, 0.75, 1.0)
"""Parts of a p95 limit beyond which a client is slow, and joins less often first."""
_MOST_PLANS = 4
"""How many plans that keep a p95 limit are returned."""


def other_deadlines(problem: Problem, q: Floats, k: Floats) -> list[tuple[Floats, Floats]]:
    """Return (q, k) of plans like this one, each with another deadline.

    Args:
        problem: the problem.
        q: sampling probabilities, shape (N,).
        k: ranks, shape (N,).
    """
    clients, system = problem.clients, problem.system
    count = 1.0 if problem.groups is None else problem.groups.count
    most = rank_limit(problem)
    alone = solo_seconds(clients, system, most)
    order = np.argsort(-alone, kind="stable")
    joining = np.cumsum((q * clients.availability * count)[order])
    now = (
        alone[order[np.searchsorted(joining, _LATE_PARTICIPANTS)]]
        if joining[-1] > _LATE_PARTICIPANTS
        else alone.max()
    )
    noise = noise_weight(clients, system) * system.lora_rank
    share = noise / most / (1 + np.sum(noise / k / q))
    level = np.median((q / np.sqrt(noise / k))[alone <= now])
    plans = []
    for deadline in now * np.array(_DEADLINE_MULTIPLES):
        limit = probability_limit(problem, most)
        late = np.maximum(alone - deadline, 1e-3 * deadline)
        seldom = np.minimum(q, np.sqrt(share * deadline / late))
        often = np.maximum(q, level * np.sqrt(noise / most))
        slow, joins = alone > deadline, (alone > now) & (alone <= deadline)
        new = np.where(slow, seldom, np.where(joins, often, q))
        ranks = np.where(slow | joins, most, k)
        plans.append(
            (
                np.clip(new, problem.q_min, np.minimum(limit, probability_limit(problem, ranks))),
                ranks,
            )
        )
    return plans


def plans_in_time(
    problem: Problem, plans: Sequence[tuple[Floats, Floats]], *, move_ranks: bool
) -> list[tuple[Floats, Floats]]:
    """Return the best (q, k) of plans like these that keep the p95 limit.

    Each plan has its ranks as they are, or as parts of the limit allow, and those who are slower
    than a deadline join less until the limit holds.

    Args:
        problem: one with a p95 limit.
        plans: q and k, of shape (N,) each; they need not keep the limit.
        move_ranks: whether ranks may move.
    """
    limit, law = problem.p95_limit_seconds, exact_law(problem)
    assert limit is not None
    tried = list(plans)
    if move_ranks:
        tried += [(q, hurried_ranks(problem, k, part)) for q, k in plans for part in _TIME_SHARES]
    found = []
    for q, k in {(q.tobytes(), k.tobytes()): (q, k) for q, k in tried}.values():
        for deadline in limit * np.array(_DEADLINE_SHARES):
            fit, ranks, _ = inside_limit(problem, q, k, move_ranks=move_ranks, deadline=deadline)
            found.append((evaluate(problem, law, fit, ranks).log_objective, fit, ranks))
    return [(q, k) for _, q, k in best_unlike(found, _MOST_PLANS)]
