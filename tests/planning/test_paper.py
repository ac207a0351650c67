"""The planner `paper`: its convex steps, and how near it comes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.planning import paper as paper_module
from fedpace.planning.exact import exact
from fedpace.planning.paper import paper
from fedpace.planning.solver.limits import p95_seconds
from fedpace.planning.solver.objective import (
    bound_law,
    evaluate,
    probability_limit,
    rank_limit,
)
from fedpace.planning.solver.sampling import fill
from planning.some_problems import some_problem, value_of


def bound_objective(problem, made):
    rank = made.decision.sketch_rank.astype(float)
    return evaluate(
        problem, bound_law(problem), made.decision.sampling_probability, rank
    ).log_objective


def test_water_filling_solves_its_convex_problem():
    rng = np.random.default_rng(0)
    reward, price = rng.exponential(size=6), rng.exponential(size=6)
    budget = 0.3 * price.sum()
    lower, upper = np.full(6, 0.01), np.linspace(0.3, 1, 6)
    scipys = minimize(
        lambda q: np.sum(reward / q), np.full(6, 0.1), jac=lambda q: -reward / q**2,
        bounds=list(zip(lower, upper, strict=True)), method="SLSQP", options={"ftol": 1e-12},
        constraints={"type": "ineq", "fun": lambda q: budget - price @ q, "jac": lambda q: -price},
    )  # fmt: skip
    levels = np.geomspace(1e-4, 1e4, 200_001)
    spent = [price @ fill(reward, price, level, lower, upper) for level in levels[::400]]
    level = np.interp(-budget, -np.array(spent), levels[::400])
    ours = fill(reward, price, level, lower, upper)
    assert price @ ours == pytest.approx(budget, rel=1e-2)
    np.testing.assert_allclose(ours, scipys.x, rtol=0.03)


def test_what_costs_nothing_is_filled_to_the_brim():
    filled = fill(np.ones(2), np.array([0.0, -1.0]), 1.0, np.zeros(2), np.array([0.5, 1.0]))
    assert filled.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("count", "sketch"), [(1, SCALED), (3, RESIDUAL), (20, SCALED), (100, RESIDUAL)]
)
def test_it_comes_within_five_percent_of_exact(count, sketch):
    problem = some_problem(count, 1, system={"sketch": sketch, "noise_ratio": 0.3})
    assert value_of(problem, paper(problem)) <= value_of(problem, exact(problem)) + 0.05


@pytest.mark.parametrize("seed", range(3))
def test_it_nearly_minimises_its_own_bound(seed):
    problem = some_problem(8, seed)
    law, most = bound_law(problem), rank_limit(problem)

    def value(z):
        point = evaluate(problem, law, np.exp(z[:8]), np.exp(z[8:]))
        slope = [point.time_by_q - point.rounds_by_q, point.time_by_k - point.rounds_by_k]
        return point.log_objective, np.concatenate(slope)

    bounds = [(np.log(problem.q_min), 0)] * 8 + [(0, np.log(most[0]))] * 8
    least = min(
        minimize(value, np.append(np.full(8, np.log(q)), np.log(most)), jac=True,
                 method="L-BFGS-B", bounds=bounds).fun
        for q in (0.9, 0.3, 0.1, 0.03, 0.003)
    )  # fmt: skip
    assert bound_objective(problem, paper(problem)) <= least + 0.01


def test_its_steps_are_few_and_it_says_when_they_were_too_few(monkeypatch):
    made = paper(some_problem(100, 2))
    assert made.verdict == "converged" and made.statistics["iterations"] <= 40
    monkeypatch.setattr(paper_module, "_MAX_ITERATIONS", 1)
    assert paper(some_problem(100, 2)).verdict == "iteration cap"


def test_it_keeps_the_limits():
    columns = {
        "max_rank": np.arange(1, 9), "step_joules": np.ones(8),
        "max_joules_per_round": np.linspace(0.5, 4, 8),
    }  # fmt: skip
    problem = some_problem(8, columns=columns)
    made = paper(problem)
    assert np.all(
        (made.decision.sketch_rank >= 1) & (made.decision.sketch_rank <= columns["max_rank"])
    )
    limit = probability_limit(problem, made.decision.sketch_rank.astype(float))
    assert np.all(made.decision.sampling_probability <= limit * (1 + 1e-12))
    assert np.all(made.decision.sampling_probability >= problem.q_min)


def test_it_starts_where_it_is_told():
    problem = some_problem(30, 3)
    cold = paper(problem)
    warm = paper(problem, cold.decision)
    assert warm.statistics["iterations"] <= cold.statistics["iterations"]
    assert value_of(problem, warm) == pytest.approx(value_of(problem, cold), abs=2e-3)


def test_it_keeps_a_p95_limit_or_says_that_it_cannot():
    free = some_problem(8, 1)
    loose = paper(free).decision
    limit = 0.6 * p95_seconds(free, loose.sampling_probability, loose.sketch_rank)
    tight = paper(replace(free, p95_limit_seconds=limit, made={}))
    reached = p95_seconds(free, tight.decision.sampling_probability, tight.decision.sketch_rank)
    assert tight.verdict == "converged" and reached <= limit
    assert value_of(free, tight) > value_of(free, loose)
    unkept = paper(replace(free, q_min=0.5, p95_limit_seconds=1e-3, made={}))
    assert unkept.verdict.startswith("infeasible: the p95 limit is exceeded even")


def test_it_says_that_it_does_not_plan_for_a_quantile():
    mean, tail = paper(some_problem(8)), paper(some_problem(8, quantile=0.7))
    np.testing.assert_array_equal(
        tail.decision.sampling_probability, mean.decision.sampling_probability
    )
    assert tail.verdict == "converged; planned by the mean round time, the quantile is not used"
