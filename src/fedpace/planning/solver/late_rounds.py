r"""Few clients under a p95 limit: by the chance of a late round, set of participants by set.

The p95 of few clients leaps from the round time of one set of participants to that of another, and
between the leaps no gradient tells how near the next one is. The chance that a round is late,

.. math:: P(T > L) = \sum_{S:\, T_S > L} \prod_{n \in S} p_n \prod_{n \notin S} (1 - p_n),

says the same: p95 <= L exactly if it is at most 0.05. And it is smooth in q: at given ranks the
T_S are numbers, so it is a polynomial. A quantile that is to be minimised is such a limit, too, one
that is chosen: at the p-quantile s at most 1 - p of the rounds take longer. There s is held, and
the rounds needed are minimised, for each of some s.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedpace.core.plan import Decision
from fedpace.core.profile import Floats
from fedpace.planning.round_time.distribution import enumerate_round_seconds
from fedpace.planning.round_time.upper_bound import solo_seconds
from fedpace.planning.solver.descent import Local, descend
from fedpace.planning.solver.limits import falling_path, shrink_to_p95
from fedpace.planning.solver.local_search import LocalOptimum, best_unlike
from fedpace.planning.solver.objective import (
    Problem,
    TimeLaw,
    evaluate,
    exact_law,
    probability_limit,
    rank_limit,
)
from fedpace.planning.solver.ranks import whole
from fedpace.planning.solver.sampling import asked, within_participants

__all__ = ["LateRounds", "are_few", "best_in_time"]

_LISTED_CLIENTS = 12
"""Up to so many clients the p95 that a plan states is by all sets of participants."""
_LATE_SHARE = 0.05
"""Share of the rounds that may be late."""
_INSIDE_SHARE = 0.98
"""Part of a limit that a start may use: a search begins within."""
_MOST_CERTAIN = 1 - 1e-9
"""The most certain that a client is taken to be there, so that no chance is divided by 0."""
_MOST_QUANTILES = 24
"""How many times are tried as the quantile."""
_FOLLOWED = 6
"""How many starts are followed to an end."""
_BARRIER_WEIGHTS = (0.02, 1e-3, 3e-5)
"""Weights of the barriers, one after the other; about what each costs in log(objective)."""
_TOLERANCE = 1e-6
"""Predicted decrease of log(objective) at which a descent ends."""
_ITERATIONS = 60
"""Iterations of a descent, at most."""
_RANK_PASSES = 4
"""How often all clients are tried with one rank more or less."""
_PROMISING = 0.2
"""Other ranks are followed where log(objective) at their start is above the best by less."""
_WORTH_LOG_OBJECTIVE = 2e-5
"""Decrease of log(objective) for which a rank is moved."""


def are_few(problem: Problem) -> bool:
    """Whether the plan has a p95 limit, and states its p95 by all sets of participants."""
    system = problem.system
    fades = system.fading and system.allocation == "work-conserving"
    listed = len(problem.clients) <= _LISTED_CLIENTS and not fades
    return listed and problem.p95_limit_seconds is not None


@dataclass(frozen=True, slots=True, eq=False)
class LateRounds:
    """The rounds that take longer than some time, at given ranks."""

    joined: NDArray[np.bool_]
    """Who takes part in each of them, shape (M, N)."""
    availability: Floats
    """Shape (N,)."""
    share: float
    """Share of all rounds that they may be."""

    def excess(self, sampling_probability: Floats) -> tuple[float, Floats]:
        """Logarithm of their chance over the share, and its derivatives in log q, shape (N,)."""
        p = np.minimum(sampling_probability * self.availability, _MOST_CERTAIN)
        weight = np.where(self.joined, p, 1 - p).prod(axis=1)
        chance = max(float(weight.sum()), 1e-300)
        by_p = weight @ self.joined / p - weight @ ~self.joined / (1 - p)
        return float(np.log(chance / self.share)), by_p * p / chance


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """What is minimised over q: at whole ranks k, under walls."""

    k: Floats
    walls: list[LateRounds]
    seconds: float | None
    """The quantile that is held, s; None: the mean moves."""


def best_in_time(
    problem: Problem, plans: Sequence[tuple[Floats, Floats]], *, move_ranks: bool
) -> LocalOptimum | None:
    """Minimise the objective where few clients have a p95 limit.

    From each plan, clients slower than a deadline are asked less, for each deadline, until the
    limit holds; the most promising of these starts are followed, and ranks moved while that helps.

    Args:
        problem: one for which `are_few` is true.
        plans: q and whole k to begin at, of shape (N,) each; they need not keep the limit.
        move_ranks: whether ranks may move.

    Returns:
        The best end; it keeps the limit as a plan states it. None where no start can.
    """
    followed = best_unlike(_starts(problem, plans), _FOLLOWED)
    if not followed:
        return None
    ends = [_followed(problem, task, q) for _, q, task in followed]
    best = min(ends, key=lambda end: end.point.log_objective)
    return _moved_ranks(problem, best) if move_ranks else best


def _starts(
    problem: Problem, plans: Sequence[tuple[Floats, Floats]]
) -> Iterator[tuple[float, Floats, _Task]]:
    """Yield log(objective), q and task of starts that keep the limits."""
    tasks: dict[bytes, list[_Task]] = {}
    law = exact_law(problem)
    for q, k in plans:
        if k.tobytes() not in tasks:
            tasks[k.tobytes()] = list(_tasks(problem, k))
        q = np.clip(q, problem.q_min, probability_limit(problem, k))
        alone = solo_seconds(problem.clients, problem.system, k) + problem.system.overhead_seconds
        for task in tasks[k.tobytes()]:
            for deadline in np.append(0.0, np.unique(alone)[:-1]):
                fitting = _inside(problem, task, q, float(deadline))
                if fitting is None:
                    break
                point = evaluate(problem, _law(task) or law, fitting, k)
                yield point.log_objective, fitting, task


def _tasks(problem: Problem, k: Floats) -> Iterator[_Task]:
    """Yield the task of these ranks, or one for each quantile that is tried."""
    assert problem.p95_limit_seconds is not None
    count, availability = len(k), problem.clients.availability
    half = Decision(np.full(count, 0.5), whole(k))
    seconds, _ = enumerate_round_seconds(half, problem.clients, problem.system)
    joined = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1 == 1
    late = LateRounds(joined[seconds > problem.p95_limit_seconds], availability, _LATE_SHARE)
    if problem.quantile is None:
        yield _Task(k, [late], None)
        return
    times = np.unique(seconds[seconds > 0])
    if len(times) > _MOST_QUANTILES:
        levels = np.linspace(0.0, 1.0, _MOST_QUANTILES)
        times = np.unique(np.quantile(times, levels, method="nearest"))
    for time in times.tolist():
        longer = LateRounds(joined[seconds > time], availability, 1 - problem.quantile)
        yield _Task(k, [late, longer], time)


def _law(task: _Task) -> TimeLaw | None:
    """The time of a round where it is held."""
    if task.seconds is None:
        return None
    held, still = task.seconds, np.zeros(len(task.k))
    return lambda q, k: (held, still, still)


def _inside(problem: Problem, task: _Task, q: Floats, deadline: float) -> Floats | None:
    """Lower q, first of those slower than the deadline, until all walls are kept with room."""
    limit = problem.p95_limit_seconds
    assert limit is not None

    def used(q: Floats, k: Floats) -> float:
        most = max(wall.excess(q)[0] for wall in task.walls)
        return limit * float(np.exp(most)) / _INSIDE_SHARE

    q = within_participants(problem, q, _INSIDE_SHARE)
    return shrink_to_p95(problem, falling_path(problem, q, task.k, deadline), task.k, used)


def _followed(problem: Problem, task: _Task, q: Floats) -> LocalOptimum:
    """Descend from q inside the walls."""
    k, held = task.k, _law(task)
    lower = np.full(len(k), np.log(problem.q_min))
    upper = np.log(probability_limit(problem, k))
    z, evaluations, iterations = np.log(q), 0, 0
    for barrier in _BARRIER_WEIGHTS:

        def make(near: Floats, barrier: float = barrier) -> Callable[[Floats], Local]:
            law = held or exact_law(problem, (np.exp(near), k))
            return lambda at: _local(problem, task, law, barrier, np.exp(at))

        end = descend(make, z, lower, upper, tolerance=_TOLERANCE, max_iterations=_ITERATIONS)
        z = end.z
        evaluations, iterations = evaluations + end.evaluations, iterations + end.iterations
    q = np.clip(np.exp(z), problem.q_min, probability_limit(problem, k))
    point = evaluate(problem, exact_law(problem), q, k)
    return LocalOptimum(q, k, point, evaluations + 1, iterations, end.residual, end.verdict)


def _local(problem: Problem, task: _Task, law: TimeLaw, barrier: float, q: Floats) -> Local:
    """Log of the objective minus barrier * log(-g), g the excess over each wall."""
    point = evaluate(problem, law, q, task.k)
    value, by_q = point.log_objective, point.time_by_q
    walls = [wall.excess(q) for wall in task.walls if len(wall.joined)]
    if problem.max_participants is not None:
        many = asked(problem, q)
        walls.append((float(np.log(many / problem.max_participants)), q / many))
    for excess, slope in walls:
        if excess >= 0:
            value = np.inf
            continue
        value -= barrier * float(np.log(-excess))
        by_q = by_q + barrier / -excess * slope
    curvature = np.maximum(by_q, 0.0) + point.rounds_by_q + 1e-300
    return Local(value, by_q - point.rounds_by_q, curvature)


def _moved_ranks(problem: Problem, best: LocalOptimum) -> LocalOptimum:
    """Give each client one rank more or less, half of them or twice as many, while that helps."""
    evaluations = best.evaluations
    for _ in range(_RANK_PASSES):
        before = best.point.log_objective
        for n in range(len(best.k)):
            now, most = best.k[n], rank_limit(problem)[n]
            tried = np.clip([now - 1, now + 1, now // 2, 2 * now], 1.0, most)
            for rank in np.unique(tried[tried != now]):
                k = best.k.copy()
                k[n] = rank
                starts = sorted(_starts(problem, [(best.q * best.k / k, k)]), key=lambda s: s[0])
                for value, q, task in starts[:1]:
                    if value > best.point.log_objective + _PROMISING:
                        continue
                    end = _followed(problem, task, q)
                    evaluations += end.evaluations
                    if end.point.log_objective < best.point.log_objective - _WORTH_LOG_OBJECTIVE:
                        best = end
        if best.point.log_objective > before - _WORTH_LOG_OBJECTIVE:
            break
    return replace(best, evaluations=evaluations)
