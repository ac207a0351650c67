r"""Plans that keep every client's epsilon below a limit.

The noise of a round is z C M, M the largest b_n / q_n, b_n = a_n / availability. At a given M a
client's loss *falls* with its own q_n, since it weighs less each time. It is largest at
q_n = b_n / M, where it is that of the rate b_n / M at the multiplier z (docs/theory.md, section
10). So with q* the largest rate at which z keeps the limit for all rounds, every client keeps it as
soon as M is at least max b / q*: as soon as one client, whichever, has q_n at most q* b_n / max b.
One upper bound on one q is all that a planner has to heed, in every round of the run and whatever
the plans before and after it.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fedpace.core.plan import Decision
from fedpace.core.profile import Floats
from fedpace.estimation.privacy_loss import PrivacyLimit
from fedpace.planning.solver.objective import LARGEST_UNGROUPED, Problem, Solution

__all__ = ["not_private", "within_privacy"]

_TOLERANCE = 1e-9
"""Relative distance by which a plan may miss the bound: that of rounding."""


def not_private(
    problem: Problem, limit: PrivacyLimit | None, planner: str, schedule: str
) -> str | None:
    """Return why no plan keeps the limit, and the remedy; None where one does.

    Args:
        problem: clients and q_min.
        limit: None where there is none.
        planner: by name.
        schedule: as it is asked for.
    """
    if limit is None:
        return None
    if planner == "infocom22" or schedule == "overlapping":
        return (
            "infeasible: max_epsilon is for clients that are sampled independently, in rounds that "
            "wait for all; take another planner than 'infocom22', and schedule 'synchronous'"
        )
    rate = limit.largest_rate()
    if rate >= problem.q_min:
        return None
    return (
        f"infeasible: with noise_multiplier = {limit.noise_multiplier:g} max_epsilon = "
        f"{limit.max_epsilon:g} allows a sampling probability of {rate:.2g} in {limit.rounds} "
        f"rounds, below q_min = {problem.q_min:g}; raise max_epsilon or noise_multiplier, or lower "
        "the rounds or q_min"
    )


def within_privacy(
    problem: Problem,
    limit: PrivacyLimit | None,
    planner: Callable[[Problem, Decision | None], Solution],
    start: Decision | None,
) -> tuple[Problem, Solution]:
    """Plan freely; where that passes the limit plan again with one client held to its bound.

    Held is the client that is nearest to its bound in the free plan.

    Args:
        problem: without a limit on privacy; `not_private` has nothing against it.
        limit: None where there is none.
        planner: makes the plans.
        start: to start from, or None.

    Returns:
        The problem with its bound, and the decision.
    """
    solution = planner(problem, start)
    if limit is None or (rate := limit.largest_rate()) >= 1:
        return problem, solution
    share = problem.clients.data_weight / problem.clients.availability
    bound = rate * share / share.max()
    if np.any(solution.decision.sampling_probability <= bound * (1 + _TOLERANCE)):
        return problem, solution
    able = bound >= problem.q_min
    distance = np.where(able, solution.decision.sampling_probability / bound, np.inf)
    held = int(np.argmin(distance))
    most = np.ones(len(share))
    most[held] = bound[held]
    bounded = replace(problem, q_max=most, made={})
    if len(share) <= LARGEST_UNGROUPED:
        solution = planner(bounded, start)
    decision = solution.decision
    q: Floats = np.minimum(decision.sampling_probability, most)
    return bounded, replace(solution, decision=replace(decision, sampling_probability=q))
