"""Draws with replacement by Luo et al.: the least of their approximation, the best of ours."""

import numpy as np
import pytest
from scipy.optimize import minimize

from fedpace.core.plan import Decision
from fedpace.planning.infocom22 import _chances, infocom22
from fedpace.planning.round_time.upper_bound import band_seconds
from fedpace.planning.solver.objective import noise_weight, rank_limit
from fedpace.wireless.latency import start_seconds
from planning.some_problems import some_problem, value_of


@pytest.mark.parametrize("draws", [1, 7])
def test_it_minimises_its_own_approximation(draws):
    problem = some_problem(9, 8, q_min=1e-9)
    k = rank_limit(problem)
    clients, system = problem.clients, problem.system
    theta = start_seconds(clients, system, k) + draws * band_seconds(clients, system, k)
    cost = noise_weight(clients, system) / draws

    def value(z):
        p = np.exp(z) / np.exp(z).sum()
        return np.log(p @ theta) + np.log1p(cost @ (1 / p))

    ours = _chances(problem, draws, k)
    assert ours.sum() == pytest.approx(1)
    least = min(minimize(value, z).fun for z in (np.zeros(9), np.log(ours), -np.log(theta)))
    assert value(np.log(ours)) <= least + 1e-4


@pytest.mark.parametrize("count", [6, 40])
def test_it_has_its_best_number_of_draws(count):
    problem = some_problem(count, 8)
    made = infocom22(problem)
    assert made.decision.sampling_probability.sum() == pytest.approx(1)
    ours, k = value_of(problem, made), rank_limit(problem)
    for draws in {
        1,
        2,
        3,
        made.decision.draws - 1,
        made.decision.draws + 1,
        2 * made.decision.draws,
        count,
        2 * count,
    }:
        if 1 <= draws <= 2 * count:
            other = Decision(_chances(problem, draws, k), made.decision.sketch_rank, draws)
            assert ours <= value_of(problem, other) + 1e-9


@pytest.mark.parametrize(
    ("limits", "joules", "said"),
    [
        ({"p95_limit_seconds": 0.6}, None, "keeps p95_limit_seconds = 0.6; raise it, lower q_min"),
        ({"max_participants": 0.5}, None, "keeps max_participants = 0.5; raise it, lower q_min"),
        (
            {"p95_limit_seconds": 0.6, "cohort": 0.5},
            1e9,
            "no number of draws with cohort = 0.5 keeps max_joules_per_round (the least is 1e+09 J)"
            " and p95_limit_seconds = 0.6; raise one of them, lower cohort",
        ),
    ],
)
def test_what_cannot_be_kept_names_the_limits_that_are_set_and_a_remedy(limits, joules, said):
    columns = {} if joules is None else {"max_joules_per_round": np.full(6, joules)}
    verdict = infocom22(some_problem(6, 8, columns=columns, **limits)).verdict
    assert verdict.startswith("infeasible: no number of draws") and said in verdict
    assert verdict.endswith(", or let 'exact' plan")


def test_it_draws_enough_to_honour_q_min():
    made = infocom22(some_problem(40, 8, q_min=0.1))
    assert made.decision.draws >= 4 and np.all(
        made.decision.draws * made.decision.sampling_probability >= 0.1 - 1e-12
    )


def test_it_leaves_out_cohorts_that_break_an_energy_budget():
    columns = {"step_joules": np.ones(8), "max_joules_per_round": np.full(8, 4.0)}
    made = infocom22(some_problem(8, 3, columns=columns))
    assert made.verdict == "converged" and np.all(
        made.decision.participation_probability() <= 0.8 + 1e-9
    )
    columns["max_joules_per_round"] = np.full(8, 0.01)
    assert infocom22(some_problem(8, 3, columns=columns)).verdict.startswith("infeasible")
