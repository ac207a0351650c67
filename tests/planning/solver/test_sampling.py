"""Water-filling and plans of one scale, against SciPy and a fine grid."""

import numpy as np
import pytest
from scipy.optimize import minimize

from fedpace.planning.solver.objective import evaluate, exact_law, probability_limit
from fedpace.planning.solver.sampling import best_scale, fill, held_scale
from planning.some_problems import some_problem


def test_water_filling_is_the_least_of_its_problem():
    rng = np.random.default_rng(0)
    reward, price, level = rng.lognormal(size=12), rng.lognormal(size=12), 3.0
    lower, upper = np.full(12, 0.3), np.full(12, 0.9)
    ours = fill(reward, price, level, lower, upper)
    assert np.any(ours == 0.3) and np.any(ours == 0.9) and np.any((ours > 0.3) & (ours < 0.9))

    def cost(q):
        return np.sum(reward / q) + level * price @ q

    theirs = minimize(cost, np.full(12, 0.5), bounds=[(0.3, 0.9)] * 12, tol=1e-12)
    assert cost(ours) <= theirs.fun + 1e-9
    np.testing.assert_allclose(ours, theirs.x, atol=1e-4)


def test_what_costs_nothing_is_taken_whole():
    q = fill(np.ones(2), np.array([0.0, 1.0]), 4.0, np.zeros(2), np.array([0.7, 1.0]))
    assert q.tolist() == [0.7, 0.5]


@pytest.mark.parametrize("count", [6, 40])
def test_no_scale_of_a_fine_grid_is_better(count):
    problem = some_problem(count, 3)
    law, k = exact_law(problem), np.full(count, 8.0)
    direction = problem.clients.data_weight
    q, point = best_scale(problem, law, direction, k)
    most = probability_limit(problem, k)
    tried = [
        evaluate(problem, law, np.clip(s * direction, problem.q_min, most), k).log_objective
        for s in np.geomspace(1e-3 / direction.max(), 1 / direction.min(), 200)
    ]
    assert point.log_objective <= min(tried) + 1e-4
    assert point.log_objective == evaluate(problem, law, q, k).log_objective


@pytest.mark.parametrize("mean", [0.02, 0.3, 0.8])
def test_a_held_scale_has_the_mean_and_the_form(mean):
    direction = np.random.default_rng(1).lognormal(size=50)
    q = held_scale(direction, mean, 0.01, np.full(50, 0.9))
    assert q.mean() == pytest.approx(mean, rel=1e-9)
    free = (q > 0.01) & (q < 0.9)
    assert np.ptp(np.log(q / direction)[free]) < 1e-9


def test_a_mean_above_all_limits_has_no_scale():
    assert held_scale(np.ones(3), 0.5, 0.01, np.array([0.2, 0.4, 0.6])) is None
