"""The nearest local optimum: no client's move improves it, and SciPy finds none better nearby."""

import numpy as np
import pytest
from scipy.optimize import minimize

from fedpace.planning.solver.limits import p95_seconds
from fedpace.planning.solver.local_search import local_search
from fedpace.planning.solver.objective import evaluate, exact_law, rank_limit
from planning.some_problems import some_problem

COUNT = 10


def value(problem, q, k):
    return evaluate(problem, exact_law(problem), q, k).log_objective


@pytest.mark.parametrize("seed", range(3))
def test_scipy_started_there_finds_nothing_better(seed):
    problem = some_problem(COUNT, seed)
    made = local_search(problem, np.full(COUNT, 0.3), np.full(COUNT, 4.0), move_ranks=True)
    assert made.verdict == "converged"

    def of(z):
        return value(problem, np.exp(z[:COUNT]), np.exp(z[COUNT:]))

    bounds = [(np.log(problem.q_min), 0.0)] * COUNT
    bounds += [(0.0, float(np.log(most))) for most in rank_limit(problem)]
    start = np.log(np.concatenate([made.q, made.k]))
    theirs = minimize(of, start, bounds=bounds, method="L-BFGS-B", options={"maxfun": 400})
    assert made.point.log_objective <= theirs.fun + 1e-3
    assert made.point.log_objective == pytest.approx(of(start), abs=1e-9)


def test_held_ranks_stay():
    problem = some_problem(COUNT, 1)
    k = np.linspace(1.0, 8.0, COUNT)
    made = local_search(problem, np.full(COUNT, 0.3), k, move_ranks=False)
    np.testing.assert_array_equal(made.k, k)
    for n in range(COUNT):
        for factor in (0.98, 1.02):
            q = np.where(np.arange(COUNT) == n, made.q * factor, made.q)
            if problem.q_min <= q[n] <= 1:
                assert value(problem, q, k) >= made.point.log_objective - 1e-4


def test_a_p95_limit_is_kept_to_a_few_per_cent_by_the_barrier():
    free = some_problem(COUNT, 2)
    q, k = np.full(COUNT, 0.5), np.full(COUNT, 8.0)
    limit = 0.8 * p95_seconds(free, q, k)
    problem = some_problem(COUNT, 2, p95_limit_seconds=limit)
    made = local_search(problem, q, k, move_ranks=False)
    assert p95_seconds(problem, made.q, made.k) <= 1.05 * limit
    loose = local_search(free, q, k, move_ranks=False)
    assert made.point.log_objective >= loose.point.log_objective - 1e-4
