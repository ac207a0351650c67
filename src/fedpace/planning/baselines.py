"""Other ways to choose who takes part: one function each, the same signature as ours.

All are judged by the same round-time law and the same rule for the rounds needed, and each gets its
own best cohort size, unless the problem holds them all at one. What else is ours in an adaptation
is said in its docstring. `start` is accepted and ignored: they search one number, globally.
"""

import numpy as np

from fedpace.core.plan import Decision
from fedpace.core.profile import Floats
from fedpace.planning.round_time.upper_bound import solo_seconds
from fedpace.planning.solver.grouping import group_mean, grouped_problem
from fedpace.planning.solver.limits import TOO_SLOW, shrink_to_p95
from fedpace.planning.solver.objective import (
    LARGEST_UNGROUPED,
    Problem,
    Solution,
    exact_law,
    log_objective,
    probability_limit,
    rank_limit,
)
from fedpace.planning.solver.ranks import whole
from fedpace.planning.solver.sampling import asked, best_scale, held_scale, within_participants

__all__ = ["fslora", "full", "oort", "statistics", "uniform", "weighted"]

_UNPAID_VERDICT = (
    "infeasible: max_joules_per_round does not pay for cohort = {:g}; lower one, raise the other"
)
"""Verdict where energy forbids the cohort asked for."""
_CROWDED_VERDICT = (
    "infeasible: {} asks for {:g} clients a round, max_participants is {:g}; raise the latter, or "
    "take another planner"
)
"""Verdict where a planner that is held at a cohort would ask for too many."""
_OORT_ALPHA = 2.0
"""Power of the penalty for slow clients."""
_OORT_PREFERRED_SHARES = (0.3, 0.5, 0.7, 0.9)
"""Shares of the clients that are not penalised; Oort's pacer moves between such shares."""


def full(problem: Problem, start: Decision | None = None) -> Solution:
    """Full participation: everyone in every round, q = 1, at the largest rank.

    FedAvg with all clients (McMahan et al., AISTATS 2017). Clients whose energy budget does not
    pay for every round take part as often as it does.
    """
    k = rank_limit(problem)
    q = probability_limit(problem, k)
    if (crowd := _crowd(problem, q)) is not None:
        return Solution(
            Decision(q, whole(k)), _CROWDED_VERDICT.format("full participation", *crowd)
        )
    if shrink_to_p95(problem, lambda part: q, k) is None:
        return Solution(Decision(q, whole(k)), TOO_SLOW.format("at full participation"))
    return Solution(Decision(q, whole(k)))


def uniform(problem: Problem, start: Decision | None = None) -> Solution:
    """Uniform sampling: one q for all, the best one, at the largest rank.

    The independent form of uniform client selection (McMahan et al., AISTATS 2017).
    """
    if "uniform" not in problem.made:
        k = rank_limit(problem)
        problem.made["uniform"] = _scaled(problem, np.ones(len(k)), k)
    made: Solution = problem.made["uniform"]
    return made


def weighted(problem: Problem, start: Decision | None = None) -> Solution:
    """Sampling in proportion to data: q_n = min(1, s a_n), the best s, at the largest rank.

    The independent form of Li et al., "On the convergence of FedAvg on non-IID data", ICLR 2020
    (scheme I).
    """
    if "weighted" not in problem.made:
        direction = problem.clients.data_weight
        problem.made["weighted"] = _scaled(problem, direction, rank_limit(problem))
    made: Solution = problem.made["weighted"]
    return made


def statistics(problem: Problem, start: Decision | None = None) -> Solution:
    """Optimal client sampling: q_n = min(1, s a_n sqrt(Gamma_n)), the best s, at the largest rank.

    Chen, Horvath and Richtarik, "Optimal client sampling for federated learning", TMLR 2022: least
    variance for a given mean cohort. They use the norm of the current update; here it is the
    root of its running second moment, times sqrt(kappa / availability), which leaves their
    argument unchanged.
    """
    k = rank_limit(problem)
    clients = problem.clients
    variance = clients.data_weight**2 * clients.update_second_moment / clients.availability / k
    return _scaled(problem, np.sqrt(variance), k)


def oort(problem: Problem, start: Decision | None = None) -> Solution:
    """Utility with a penalty on slow clients, after Oort.

    Lai et al., "Oort: Efficient federated learning via guided participant selection", OSDI 2021:
    utility = statistical utility x (T/t_n)^alpha where t_n > T, alpha = 2. Ours: the statistical
    utility is a_n sqrt(Gamma_n); t_n is the round of n alone; clients are sampled with q_n =
    min(1, s utility) and their updates divided by q_n, while Oort takes the best and is biased; T
    is the best of four quantiles of t, in the place of Oort's pacer.
    """
    k = rank_limit(problem)
    clients = problem.clients
    seconds = solo_seconds(clients, problem.system, k)
    worth = clients.data_weight * np.sqrt(clients.update_second_moment)
    plans = []
    for preferred in np.unique(np.quantile(seconds, _OORT_PREFERRED_SHARES, method="higher")):
        utility = worth * np.minimum(1.0, preferred / np.maximum(seconds, 1e-300)) ** _OORT_ALPHA
        plans.append(_scaled(problem, utility, k))
    keeping = [plan for plan in plans if plan.verdict == "converged"]
    return min(keeping or plans, key=lambda plan: log_objective(problem, plan.decision))


def fslora(problem: Problem, start: Decision | None = None) -> Solution:
    """Uniform sampling, the rank set by the device.

    "Federated sketching LoRA" (FSLoRA, arXiv 2501.19389): the sketch rank follows the capability of
    the device, participants are drawn uniformly. Ours: capability is 1 / (the round of n alone
    at full rank); the median device and faster ones get r, the others in proportion, within memory;
    the single q is the best one.
    """
    most = rank_limit(problem)
    seconds = solo_seconds(problem.clients, problem.system, most)
    k = problem.system.lora_rank * np.median(seconds) / np.maximum(seconds, 1e-300)
    k = np.clip(np.floor(k + 0.5), 1.0, most)
    return _scaled(problem, np.ones(len(k)), k)


def _crowd(problem: Problem, sampling_probability: Floats) -> tuple[float, float] | None:
    """How many clients a round asks and how many it may, where that is fewer."""
    many, limit = asked(problem, sampling_probability), problem.max_participants
    return None if limit is None or many <= limit * (1 + 1e-9) else (many, limit)


def _scaled(problem: Problem, direction: Floats, k: Floats) -> Solution:
    """The best plan of the form q = min(limit, s direction) that keeps the p95 limit.

    Where the problem names a cohort the one of that mean is taken, or none.
    """
    direction = np.maximum(direction / direction.max(), 1e-300)
    most = probability_limit(problem, k)
    if problem.cohort is not None:
        held = held_scale(direction, problem.cohort, problem.q_min, most)
        if held is None:
            return Solution(Decision(most, whole(k)), _UNPAID_VERDICT.format(problem.cohort))
        if (crowd := _crowd(problem, held)) is not None:
            verdict = _CROWDED_VERDICT.format(f"cohort = {problem.cohort:g}", *crowd)
            return Solution(Decision(held, whole(k)), verdict)
        if shrink_to_p95(problem, lambda part: held, k) is None:
            verdict = TOO_SLOW.format(f"at cohort = {problem.cohort:g}")
            return Solution(Decision(held, whole(k)), verdict)
        return Solution(Decision(held, whole(k)))
    if len(k) > LARGEST_UNGROUPED:
        by_group, groups = grouped_problem(problem)
        towards, ranks = group_mean(groups, direction), group_mean(groups, k)
        q, _ = best_scale(by_group, exact_law(by_group), towards, ranks)
        q = np.clip((q / towards).max() * direction, problem.q_min, most)
    else:
        q, _ = best_scale(problem, exact_law(problem), direction, k)
    q = within_participants(problem, q)
    span = np.log((problem.q_min / direction).min() / (q / direction).max())

    def path(part: float) -> Floats:
        scale = np.exp(part * span) * (q / direction).max()
        return np.asarray(np.minimum(np.clip(scale * direction, problem.q_min, most), q))

    fitting = shrink_to_p95(problem, path, k)
    if fitting is None:
        verdict = TOO_SLOW.format("even with every client at q_min")
        return Solution(Decision(q, whole(k)), verdict)
    return Solution(Decision(fitting, whole(k)))
