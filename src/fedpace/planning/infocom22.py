r"""Adaptive client sampling with replacement: what independent sampling came after.

Luo et al., "Tackling system and statistical heterogeneity for federated learning with adaptive
client sampling", INFOCOM 2022 (arXiv 2112.11256); its journal version (arXiv 2404.13804) shares the
band. Each round draws K clients with replacement, client n with chance p_n in each draw, and p
minimises an approximation of the round time times the rounds of a bound alpha V + beta:

.. math:: \min_p \Big(\sum_n p_n \theta_n\Big)\Big(1 + \sum_n \frac{c_n}{K p_n}\Big),
    \qquad \theta_n = \tau_n + K t_n / W, \quad \sum_n p_n = 1.

The solutions are p_n ~ sqrt(c_n / (theta_n + nu)), and a line search finds nu. Ours: theta_n, by
the abstract and not by the text; c_n from the noise ratio and the second moments, as for every
planner here; the largest ranks; K is the best one by the common objective, with the participants of
a round taken as independent. A cohort that the problem names sets K = cohort x N: so many draws.
"""

import numpy as np
from scipy.optimize import minimize_scalar

from fedpace.core.plan import Decision
from fedpace.core.profile import Floats
from fedpace.planning.round_time.upper_bound import band_seconds
from fedpace.planning.solver.limits import p95_seconds
from fedpace.planning.solver.objective import (
    Problem,
    Solution,
    TimeLaw,
    bound_law,
    exact_law,
    noise_weight,
    probability_limit,
    rank_limit,
    relative_rounds,
)
from fedpace.planning.solver.ranks import whole
from fedpace.wireless.latency import start_seconds

__all__ = ["infocom22"]

_FEW_CLIENTS = 16
"""Up to this many clients the first grid is by the law itself, beyond by the upper bound."""
_GRID_COHORTS = 16
"""Numbers of draws of the first grid."""


def infocom22(problem: Problem, start: Decision | None = None) -> Solution:
    """Draws with replacement, the chances by Luo et al. and the best K; see the module.

    Args:
        problem: the problem. Cohorts that break an energy budget or the p95 limit are left out.
        start: accepted and ignored.

    Returns:
        A decision with `draws`; "infeasible" where no K keeps the limits.
    """
    count, k = len(problem.clients), rank_limit(problem)
    least, most = max(1, int(np.ceil(count * problem.q_min))), 2 * count
    if problem.cohort is not None:
        least = most = max(1, round(problem.cohort * count))
    if problem.max_participants is not None and problem.cohort is None:
        most = max(least, min(most, int(problem.max_participants)))
    first = exact_law(problem) if count <= _FEW_CLIENTS else bound_law(problem)
    grid = np.unique(np.geomspace(least, max(least, most), _GRID_COHORTS).astype(np.int64)).tolist()
    draws = min(grid, key=lambda K: _value(problem, first, K, k))
    law, values = exact_law(problem), dict[int, float]()

    def value(K: int) -> float:
        if K not in values:
            values[K] = _value(problem, law, K, k) if least <= K <= most else np.inf
        return values[K]

    step = max(1, draws // 4)
    while step:
        best = min((draws, draws - step, draws + step), key=value)
        if best == draws:
            step //= 2
        draws = best
    if not np.isfinite(value(draws)):
        return Solution(
            Decision(_chances(problem, least, k), whole(k), least), _infeasible(problem)
        )
    decision = Decision(_chances(problem, draws, k), whole(k), draws)
    return Solution(decision, statistics={"draws": draws})


def _infeasible(problem: Problem) -> str:
    """Name the limits that are set and what to do; one that is not set is not in the way."""
    joules = problem.clients.max_joules_per_round
    limits = []
    if np.any(np.isfinite(joules)):
        limits.append(f"max_joules_per_round (the least is {joules.min():g} J)")
    if problem.p95_limit_seconds is not None:
        limits.append(f"p95_limit_seconds = {problem.p95_limit_seconds:g}")
    if problem.max_participants is not None:
        limits.append(f"max_participants = {problem.max_participants:g}")
    held = "" if problem.cohort is None else f" with cohort = {problem.cohort:g}"
    lower = "lower q_min" if problem.cohort is None else "lower cohort"
    return (
        f"infeasible: no number of draws{held} keeps {' and '.join(limits)}; "
        f"raise {'it' if len(limits) == 1 else 'one of them'}, {lower}, or let 'exact' plan"
    )


def _chances(problem: Problem, draws: int, k: Floats) -> Floats:
    """The p of Luo et al. for a given K; at least q_min / K each."""
    clients, system = problem.clients, problem.system
    theta = start_seconds(clients, system, k) + draws * band_seconds(clients, system, k)
    cost = noise_weight(clients, system) * system.lora_rank / k / draws

    def shape(log_offset: float) -> Floats:
        p = np.sqrt(cost / (theta - theta.min() + np.exp(log_offset) * theta.mean()))
        return np.asarray(p / p.sum())

    def value(log_offset: float) -> float:
        p = shape(log_offset)
        return float(np.log(p @ theta) + np.log1p(cost @ (1 / p)))

    if system.noise_ratio == 0:
        cost = np.ones(len(clients))
    best = minimize_scalar(value, bounds=(-12.0, 12.0), method="bounded", options={"xatol": 1e-2})
    floor = problem.q_min / draws
    return floor + (1 - len(clients) * floor) * shape(best.x)


def _value(problem: Problem, law: TimeLaw, draws: int, k: Floats) -> float:
    """Log of the common objective; infinite where a limit is broken."""
    decision = Decision(_chances(problem, draws, k), whole(k), draws)
    joins = decision.participation_probability()
    if np.any(joins > probability_limit(problem, k) * (1 + 1e-9)):
        return np.inf
    if problem.max_participants is not None and draws > problem.max_participants:
        return np.inf
    limit = problem.p95_limit_seconds
    if limit is not None and p95_seconds(problem, joins, k) > limit:
        return np.inf
    p = decision.sampling_probability
    rounds = relative_rounds(p, k, problem.clients, problem.system, draws)
    return float(np.log(law(joins, k)[0]) + np.log(rounds))
