r"""Plans with another deadline: who is waited for, and who hardly ever asked.

Where many take part, one slow client more or less changes nothing as long as others as slow take
part too. So each round time that slow clients do not exceed has a local optimum of its own, and no
small step leads from one to the next: below it a client takes part as it is worth, and above it
with q so small that, most of the time, nobody there does. At the marginal price of such a client,
its time alone beyond the deadline, the best q is

.. math:: q_n = \sqrt{\frac{n_n}{1 + \sum n / q} \frac{D}{u_n - D}},

n_n its noise, u_n its time alone, D the deadline (water-filling, as in `sampling.fill`).
"""

import numpy as np

from fedpace.core.profile import Floats
from fedpace.planning.round_time.upper_bound import solo_seconds
from fedpace.planning.solver.objective import Problem, noise_weight, probability_limit, rank_limit

__all__ = ["other_deadlines"]

_DEADLINE_MULTIPLES = (0.65, 0.75, 0.82, 0.88, 0.94, 1.06, 1.12, 1.2, 1.35)
"""Deadlines tried, as multiples of the present one."""
_LATE_PARTICIPANTS = 0.7
"""Slower than the deadline: the slowest who together join so many times a round, or less."""


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
