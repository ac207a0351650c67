"""The objective: rounds needed, elasticities, limits."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.plan import Decision
from fedpace.core.profile import Clients
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.planning.round_time.distribution import mean_and_gradient
from fedpace.planning.solver.objective import (
    Problem,
    evaluate,
    exact_law,
    log_objective,
    probability_limit,
    rank_limit,
    relative_rounds,
)
from planning.some_problems import some_clients, some_problem, some_system


def rounds_by_hand(q, k, problem):
    c, s = problem.clients, problem.system
    kappa = [s.lora_rank / rank for rank in k]
    full = sum(a * a * g for a, g in zip(c.data_weight, c.update_second_moment, strict=True))
    noise = sum(
        c.data_weight[n] ** 2 * kappa[n] * c.update_second_moment[n] / (q[n] * c.availability[n])
        for n in range(len(c))
    )
    power = 1 if s.sketch == SCALED else 0
    mean_kappa = sum(c.data_weight[n] * kappa[n] for n in range(len(c)))
    return (1 + s.noise_ratio * noise / full) / (1 + s.noise_ratio) * mean_kappa**power


@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL])
def test_relative_rounds_are_the_formula_of_the_interface(sketch):
    problem = some_problem(
        5, system={"sketch": sketch}, columns={"availability": [1, 0.5, 0.9, 1, 0.2]}
    )
    q, k = np.array([1, 0.3, 0.01, 0.6, 0.5]), np.array([8.0, 1, 3, 5, 8])
    ours = relative_rounds(q, k, problem.clients, problem.system)
    assert ours == pytest.approx(rounds_by_hand(q, k, problem), rel=1e-12)
    decision = Decision(q, k.astype(np.int64))
    seconds = exact_law(problem)(q, k)[0]
    assert log_objective(problem, decision) == pytest.approx(np.log(seconds * ours), rel=1e-12)


@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL])
def test_full_participation_at_full_rank_needs_one_round(sketch):
    problem = some_problem(4, system={"sketch": sketch})
    ours = relative_rounds(np.ones(4), np.full(4, 8.0), problem.clients, problem.system)
    assert ours == pytest.approx(1.0, rel=1e-14)


def test_draws_count_by_the_second_moment_of_how_often_a_client_is_drawn():
    p, draws = np.array([0.5, 0.2, 0.3]), 4
    first, second = np.zeros(3), np.zeros(3)
    for drawn in itertools.product(range(3), repeat=draws):  # every outcome
        chance = np.prod(p[list(drawn)])
        often = np.bincount(drawn, minlength=3)
        first += chance * often
        second += chance * often**2
    problem = some_problem(3)
    inverse = second / first**2  # 1/q of the independent client with the same noise
    rank = np.array([8.0, 4, 2])
    args = (rank, problem.clients, problem.system)
    assert relative_rounds(p, *args, draws) == pytest.approx(relative_rounds(1 / inverse, *args))


def test_a_band_that_never_idles_is_seen_by_groups_and_they_take_as_long_as_all():
    system = some_system(900, allocation="work-conserving")
    clients = some_clients(900, availability=np.linspace(0.5, 1, 900))
    problem = Problem(clients, system)
    assert len(problem.groups.first) <= 500
    assert Problem(clients, replace(system, allocation="equal-finish")).groups is None
    q, k = np.clip(clients.data_weight * 30, 1e-3, 1), np.full(900, 5.0)
    seconds, by_q, _ = exact_law(problem)(q, k)
    alone, each_by_q, _ = mean_and_gradient(q, k, clients, system)  # one by one
    assert seconds == pytest.approx(alone, rel=5e-4)
    np.testing.assert_allclose(by_q * q, each_by_q * q, atol=0.02 * np.max(each_by_q * q))


@pytest.mark.parametrize("quantile", [None, 0.9])
@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL])
def test_elasticities_are_the_slopes_of_the_logarithm(sketch, quantile):
    problem = some_problem(
        6, quantile=quantile, system={"sketch": sketch},
        columns={"availability": np.linspace(0.4, 1, 6)},
    )  # fmt: skip
    q, k = np.array([0.9, 0.3, 0.1, 0.6, 0.5, 0.2]), np.array([7.0, 1.5, 3, 5, 4, 2])
    law = exact_law(problem, near=(q, k))
    point = evaluate(problem, law, q, k)
    step = 1e-4
    for n in range(6):
        for which, slope in (
            (0, point.time_by_q - point.rounds_by_q),
            (1, point.time_by_k - point.rounds_by_k),
        ):
            ends = []
            for sign in (1, -1):
                moved = [q.copy(), k.copy()]
                moved[which][n] *= np.exp(sign * step)
                ends.append(evaluate(problem, law, *moved).log_objective)
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope[n], rel=2e-4, abs=2e-6)


def test_without_noise_participation_costs_no_rounds():
    problem = some_problem(4, system={"noise_ratio": 0.0})
    few = relative_rounds(np.full(4, 0.01), np.full(4, 2.0), problem.clients, problem.system)
    assert few == 1.0


def test_units_of_data_and_of_update_norms_do_not_matter():
    problem = some_problem(5)
    columns = dict(problem.clients.columns())
    columns["data_weight"] = columns["data_weight"] * 7
    columns["update_second_moment"] = columns["update_second_moment"] * 1e-6
    other = replace(problem, clients=Clients.from_columns(**columns))
    decision = Decision(np.full(5, 0.3), np.full(5, 4))
    assert log_objective(other, decision) == pytest.approx(
        log_objective(problem, decision), rel=1e-12
    )


def test_energy_budgets_limit_probability_and_rank():
    problem = some_problem(
        4, columns={
            "step_joules": [1, 1, 0, 0], "upload_joules_per_bit": [0, 1e-6, 1e-6, 0],
            "max_joules_per_round": [0.5, 4, 2, 1],
        }, q_min=0.25, rank=16,
    )  # fmt: skip
    # At rank k a round costs 5, 5 + 4 + k, 4 + k and 0 J; q_min must be paid for.
    assert rank_limit(problem).tolist() == [0, 7, 4, 16]
    limit = probability_limit(problem, np.array([1.0, 7, 4, 16]))
    np.testing.assert_allclose(limit, [0.25, 0.25, 0.25, 1.0])
    loose = probability_limit(problem, np.array([1.0, 1, 1, 1]))
    np.testing.assert_allclose(loose, [0.25, 0.4, 0.4, 1.0])


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"q_min": 0.0}, "q_min is 0.0"),
        ({"q_min": 1.5}, "q_min is 1.5"),
        ({"q_min": float("nan")}, "q_min is nan"),
        ({"quantile": 1.0}, "quantile is 1.0"),
        ({"p95_limit_seconds": -3.0}, "p95_limit_seconds is -3.0"),
    ],
)
def test_values_out_of_range_are_refused(limits, message):
    problem = some_problem(2)
    with pytest.raises(InputError, match=message):
        Problem(problem.clients, problem.system, **limits)
