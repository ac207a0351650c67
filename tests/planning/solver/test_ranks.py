"""Ranks for given probabilities: balance, rounding within limits, neighbours worth trying."""

import numpy as np
import pytest

from fedpace.core.plan import Decision
from fedpace.planning.solver.local_search import local_search
from fedpace.planning.solver.objective import (
    evaluate,
    exact_law,
    log_objective,
    probability_limit,
    rank_limit,
)
from fedpace.planning.solver.ranks import better_ranks, relaxed_ranks, rounded_ranks, whole
from planning.some_problems import some_problem


def some_point(seed=0, **limits):
    problem = some_problem(12, seed, system={"noise_ratio": 0.05}, **limits)
    q = np.linspace(0.2, 0.9, 12)
    k = np.minimum(np.linspace(1.3, 7.6, 12), rank_limit(problem))
    return problem, q, k, evaluate(problem, exact_law(problem), q, k)


def test_relaxed_ranks_are_the_least_of_time_and_rounds_at_fixed_prices():
    problem, _, k, point = some_point()
    ours = relaxed_ranks(problem, point, k)
    factor = np.geomspace(1e-2, 1e2, 40_001)[:, None]
    ranks = k * factor
    model = point.time_by_k * factor + point.rounds_by_k / factor  # linear time, reciprocal rounds
    model[(ranks < 1) | (ranks > rank_limit(problem) * (1 + 1e-12))] = np.inf
    best = k * factor[np.argmin(model, axis=0), 0]
    np.testing.assert_allclose(ours, best, rtol=1e-3)


def test_rounding_is_to_a_neighbour_within_the_limits_and_costs_less_than_always_down():
    problem = some_problem(12, 1, columns={"max_rank": np.where(np.arange(12) < 6, 3.0, 8.0)},
                           system={"noise_ratio": 0.05})  # fmt: skip
    made = local_search(problem, np.full(12, 0.3), np.full(12, 2.5), move_ranks=True)
    q, k = made.q, made.k
    assert np.any(k % 1 > 0.05)
    new_q, new_k = rounded_ranks(problem, made.point, q, k)
    assert np.all((new_k == np.floor(k)) | (new_k == np.ceil(k)))
    assert np.all((new_k >= 1) & (new_k <= rank_limit(problem)))
    assert np.all((new_q >= problem.q_min) & (new_q <= probability_limit(problem, new_k)))
    rounded = log_objective(problem, Decision(new_q, whole(new_k)))
    down = log_objective(problem, Decision(q, whole(np.floor(k))))
    assert rounded <= down
    assert rounded == pytest.approx(made.point.log_objective, abs=0.01)


def test_a_promised_gain_is_there_when_one_client_moves_alone():
    problem, q, k, _ = some_point()
    k = np.round(k)
    law = exact_law(problem)
    here = evaluate(problem, law, q, k)
    new_q, new_k, change = better_ranks(problem, here, q, k)
    assert np.all(np.abs(new_k - k) <= 1) and np.all(change <= 0)
    n = int(np.argmin(change))
    assert change[n] < 0 and new_k[n] != k[n]
    at = np.arange(12) == n
    moved = evaluate(problem, law, np.where(at, new_q, q), np.where(at, new_k, k))
    stays = evaluate(problem, law, q, np.where(at, k, k))
    assert moved.log_objective < stays.log_objective
