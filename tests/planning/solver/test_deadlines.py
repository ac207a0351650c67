"""Plans with another deadline: who is asked less, who more, and the best chance of the late."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from fedpace.planning.round_time.upper_bound import solo_seconds
from fedpace.planning.solver.deadlines import other_deadlines
from fedpace.planning.solver.objective import (
    noise_weight,
    probability_limit,
    rank_limit,
)
from planning.some_problems import some_problem

COUNT = 60


def some_plans():
    problem = some_problem(COUNT, 4)
    q, k = np.full(COUNT, 0.4), np.full(COUNT, 8.0)
    return problem, q, k, other_deadlines(problem, q, k)


def test_every_plan_keeps_the_limits_and_no_two_are_the_same():
    problem, _, _, plans = some_plans()
    for q, k in plans:
        assert np.all((q >= problem.q_min) & (q <= probability_limit(problem, k)))
        assert np.all((k >= 1) & (k <= rank_limit(problem)))
    assert len({q.tobytes() for q, _ in plans}) == len(plans) == 9


def test_the_slowest_are_asked_less_and_no_deadline_moves_the_fastest():
    problem, q, _, plans = some_plans()
    alone = solo_seconds(problem.clients, problem.system, rank_limit(problem))
    slowest, fastest = np.argmax(alone), np.argsort(alone)[: COUNT // 4]
    for new, _ in plans[:3]:  # the early deadlines
        assert new[slowest] < q[slowest]
        np.testing.assert_array_equal(new[fastest], q[fastest])
    asked_less = [int(np.sum(new < q)) for new, _ in plans]
    assert asked_less == sorted(asked_less, reverse=True)


def test_the_chance_of_a_late_client_is_the_least_of_its_own_noise_and_time():
    r"""q minimises n / (q R) + q (u - D) / D, with R = 1 + sum n/q of all: what it costs the
    logarithms of the rounds and of the round time."""
    problem, q, k, plans = some_plans()
    most = rank_limit(problem)
    alone = solo_seconds(problem.clients, problem.system, most)
    noise = noise_weight(problem.clients, problem.system) * problem.system.lora_rank
    rounds = 1 + np.sum(noise / k / q)
    late = np.argmax(alone)
    new = plans[0][0]
    assert problem.q_min < new[late] < q[late]
    # The deadline from any other late client that moved: u - D = D share / q^2.
    share = noise / most / rounds
    deadline = alone[late] / (1 + share[late] / new[late] ** 2)
    others = np.flatnonzero((alone > deadline * 1.01) & (new < q) & (new > problem.q_min))
    assert len(others) > 2
    for n in others:
        best = minimize_scalar(
            lambda x, n=n: share[n] / x + x * (alone[n] - deadline) / deadline,
            bounds=(1e-4, 1.0), method="bounded", options={"xatol": 1e-9},
        ).x  # fmt: skip
        assert new[n] == pytest.approx(best, rel=1e-3)
