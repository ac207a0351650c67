"""The p95 limit: what a plan states, its slopes, and the way down to it."""

from dataclasses import replace

import numpy as np
import pytest

from fedpace.core.plan import Decision
from fedpace.planning.round_time.simulation import simulate_round_seconds
from fedpace.planning.round_time.upper_bound import solo_seconds
from fedpace.planning.solver.limits import (
    falling_path,
    hurried_ranks,
    p95_excess,
    p95_seconds,
    shrink_to_p95,
)
from planning.some_problems import some_problem

Q, K = np.linspace(0.2, 0.9, 14), np.full(14, 8.0)


def test_p95_is_that_of_drawn_rounds():
    problem = some_problem(14, 2)
    drawn = simulate_round_seconds(
        Decision(Q, np.full(14, 8)), problem.clients, problem.system, 20_000, 0
    )
    assert p95_seconds(problem, Q, K) == pytest.approx(np.quantile(drawn, 0.95), rel=0.03)


def test_its_slopes_are_differences():
    problem = some_problem(14, 2)
    _, by_q, by_k = p95_excess(problem, 10.0, Q, K)
    for n in (0, 6, 13):
        scale = np.where(np.arange(14) == n, np.exp(1e-4), 1.0)
        up, down = (p95_excess(problem, 10.0, Q * s, K)[0] for s in (scale, 1 / scale))
        assert by_q[n] == pytest.approx((up - down) / 2e-4, rel=0.02, abs=1e-3)
        up, down = (p95_excess(problem, 10.0, Q, K * s)[0] for s in (scale, 1 / scale))
        assert by_k[n] == pytest.approx((up - down) / 2e-4, rel=0.02, abs=1e-3)


def test_the_way_down_ends_at_the_limit_and_asks_the_slow_less_first():
    free = some_problem(14, 2)
    limit = 0.8 * p95_seconds(free, Q, K)
    problem = replace(free, p95_limit_seconds=limit, made={})
    path = falling_path(problem, Q, K)
    np.testing.assert_allclose(path(0.0), Q)
    np.testing.assert_allclose(path(1.0), problem.q_min)
    slow = solo_seconds(problem.clients, problem.system, K) + 0.5 > limit
    assert slow.any() and np.all(path(0.5)[slow] == pytest.approx(problem.q_min))
    np.testing.assert_allclose(path(0.5)[~slow], Q[~slow])
    q = shrink_to_p95(problem, path, K)
    assert p95_seconds(problem, q, K) <= limit
    assert p95_seconds(problem, np.minimum(Q, q * 1.02), K) > 0.9 * limit


def test_a_limit_that_nothing_keeps_has_no_end():
    problem = some_problem(14, 2, p95_limit_seconds=1e-3)
    assert shrink_to_p95(problem, falling_path(problem, Q, K), K) is None


def test_hurried_ranks_leave_a_tenth_of_the_limit_to_a_client_alone():
    free = some_problem(14, 2)
    overhead = free.system.overhead_seconds
    limit = float(np.median(overhead + solo_seconds(free.clients, free.system, K)))
    k = hurried_ranks(replace(free, p95_limit_seconds=limit, made={}), K)
    lowered = k < K
    assert lowered.any() and not lowered.all()
    alone, more = (overhead + solo_seconds(free.clients, free.system, k + j) for j in (0, 1))
    assert np.all(alone[lowered] <= 0.9 * limit + 1e-9)
    assert np.all(more[lowered] > 0.9 * limit)
    np.testing.assert_array_equal(hurried_ranks(free, K), K)
