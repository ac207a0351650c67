"""Shares of the mean that are not those of the data: the best ones, and never more than allowed."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

import fedpace as fp
from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.core.sketch import SCALED
from fedpace.planning.overlap.bias import (
    LEAST_SHARE,
    best_weights,
    bias_if_alike,
    bias_of,
    overlapping_with_bias,
)
from fedpace.planning.overlap.described import beats_seconds
from fedpace.planning.overlap.fleet import fleet_of, grouped_fleet
from fedpace.planning.overlap.objective import BATCH_NOISE, cost_of
from fedpace.planning.overlap.planner import overlapping
from fedpace.planning.overlap.step import THETA
from fedpace.planning.solver.objective import Problem
from planning.some_problems import some_clients, some_problem, some_system

NEVER_IDLE = {"allocation": "work-conserving"}


def seconds(fleet, law, rank, weight):
    """J / (1 - B), from the objective itself; a solver may look where nothing is left of a step."""
    cost = cost_of(fleet.reweighted(weight), law, rank)
    return cost.objective_seconds / max(1 - bias_of(fleet, weight), 1e-3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("max_bias", [0.9, 0.01])
def test_no_shares_that_scipy_finds_are_better(seed, max_bias):
    problem = some_problem(6, seed, system=NEVER_IDLE)
    fleet, made = fleet_of(problem.clients, problem.system), overlapping(problem, polish=False)
    rank = made.sketch_rank.astype(np.float64)
    mine = best_weights(fleet, made.law, rank, max_bias)
    value = seconds(fleet, made.law, rank, mine)
    assert mine.sum() == pytest.approx(1) and np.all(mine >= 0.99 * LEAST_SHARE * fleet.data_weight)
    assert bias_of(fleet, mine) <= max_bias * (1 + 1e-9)
    assert value < seconds(fleet, made.law, rank, fleet.data_weight)
    a = fleet.data_weight
    found = minimize(
        lambda x: seconds(fleet, made.law, rank, a * x), np.ones(6),
        bounds=[(LEAST_SHARE, 1 / share) for share in a],
        constraints=[{"type": "eq", "fun": lambda x: a @ x - 1},
                     {"type": "ineq", "fun": lambda x: 1 - bias_of(fleet, a * x) / max_bias}],
        method="SLSQP", options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    assert value == pytest.approx(found.fun, rel=1e-5)
    if max_bias == 0.01:
        assert bias_of(fleet, mine) == pytest.approx(0.01)


def test_without_a_bias_nothing_changes():
    clients, system = some_clients(3, 1), some_system(3, **NEVER_IDLE)
    plain = fp.plan(clients, system, schedule="overlapping")
    assert plain.aggregation_weight is None and "bias" not in plain.statistics
    none = fp.plan(clients, system, schedule="overlapping", max_bias=0.0)
    assert none.to_json() == plain.to_json()
    # Two alike have nothing to gain.
    alike = ("data_weight", "step_seconds", "step_seconds_per_rank", "spectral_efficiency",
             "update_second_moment")  # fmt: skip
    twins = some_clients(2, **{name: np.ones(2) for name in alike})
    assert fp.plan(twins, system, schedule="overlapping", max_bias=0.5).aggregation_weight is None


@pytest.fixture(scope="module")
def biased():
    clients, system = some_clients(20, 1, spread=1.5), some_system(20, **NEVER_IDLE)
    return clients, system, fp.plan(clients, system, schedule="overlapping", max_bias=0.1)


def test_a_plan_says_its_bias_and_gains_by_it(biased):
    clients, system, made = biased
    plain = fp.plan(clients, system, schedule="overlapping")
    assert made.objective_seconds < 0.95 * plain.objective_seconds
    assert 0 < made.statistics["bias"] <= 0.1 + 1e-9
    assert made.aggregation_weight.sum() == pytest.approx(1)
    # What the plan says is what its own decision costs.
    fleet = fleet_of(clients, system)
    again = overlapping(
        Problem(clients, system), made.beat_seconds,
        weight=made.aggregation_weight,
    )  # fmt: skip
    slower = again.cost.objective_seconds / (1 - bias_of(fleet, made.aggregation_weight))
    assert made.objective_seconds == pytest.approx(slower, rel=0.02)
    assert made.limit_seconds < made.objective_seconds
    assert Plan.from_json(made.to_json()).to_json() == made.to_json()


@pytest.mark.slow
def test_where_clients_differ_much_shares_fall_back_to_the_data():
    clients = some_clients(20, 1, spread=1.5)
    problems = [
        some_problem(20, 1, 1.5, system={**NEVER_IDLE, "noise_ratio": noise})
        for noise in (0.3, 3.0, 300.0)
    ]
    found = [overlapping_with_bias(problem, 0.3, polish=False) for problem in problems]
    apart = [0.0 if f.weight is None else np.abs(f.weight - clients.data_weight).sum()
             for f in found]  # fmt: skip
    assert apart[0] > 1.5 * apart[1] > 1.5**2 * apart[2] and apart[2] < 0.1


def test_groups_stand_for_their_members():
    clients, system = some_clients(4000, 3), some_system(4000, **NEVER_IDLE)
    weight = clients.data_weight * np.linspace(0.5, 1.5, 4000)
    weight = weight / weight.sum()
    single, crowd = (
        fleet_of(clients, system),
        grouped_fleet(fleet_of(clients, system, weight), clients, system),
    )
    assert crowd.members @ crowd.data_weight == pytest.approx(1)
    own = single.reweighted(weight).noise
    assert crowd.members @ crowd.noise == pytest.approx(own.sum(), rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_no_shares_of_a_grid_are_better_when_each_has_its_own_schedule(seed):
    problem = some_problem(3, seed, 1.5, system=NEVER_IDLE)
    fleet = fleet_of(problem.clients, problem.system)
    mine = overlapping_with_bias(problem, 0.3, polish=False)
    steps = np.linspace(0.02, 0.98, 13)
    best = np.inf
    for one in steps:
        for two in steps:
            weight = np.array([one, (1 - one) * two, (1 - one) * (1 - two)])
            if (bias := bias_of(fleet, weight)) > 0.3:
                continue
            made = overlapping(problem, weight=weight, polish=False)
            best = min(best, made.cost.objective_seconds / (1 - bias))
    assert mine.schedule.cost.objective_seconds < 1.02 * best


@pytest.mark.parametrize("changes, message", [
    (dict(max_bias=1.0), "max_bias is 1.0; give a share in"),
    (dict(max_bias=-0.1), "max_bias is -0.1"),
    (dict(max_bias=0.1, schedule="synchronous"), "max_bias = 0.1: only rounds that overlap"),
    (dict(max_bias=0.1, schedule="auto", planner="uniform"), "planner 'uniform' plans without"),
])  # fmt: skip
def test_what_cannot_be_is_refused(changes, message):
    clients, system = some_clients(3), some_system(3, **NEVER_IDLE)
    with pytest.raises(InputError, match=message):
        fp.plan(clients, system, **{"schedule": "overlapping", **changes})
    with pytest.raises(InputError, match="max_bias = 0.1 with noise_ratio = 0"):
        silent = replace(system, noise_ratio=0.0)
        fp.plan(clients, silent, schedule="overlapping", max_bias=0.1)


def test_without_noise_updates_are_worth_nothing_and_no_number_breaks():
    clients, system = some_clients(5), some_system(5, noise_ratio=0.0, **NEVER_IDLE)
    made = overlapping(Problem(clients, system), polish=False)
    assert np.isfinite(made.cost.objective_seconds) and np.all(made.law.chance > 0)


def test_the_scaled_sketch_pays_for_the_ranks_of_all_the_data():
    """What is minimised is as smooth as the clients' data says, whoever is aggregated."""
    problem = some_problem(
        6, 2, 1.5, columns={"max_rank": [8, 8, 8, 1, 1, 1]},
        system={**NEVER_IDLE, "sketch": SCALED},
    )  # fmt: skip
    clients = problem.clients
    mine = overlapping_with_bias(problem, 0.3, polish=False)
    kappa = 8 / mine.schedule.sketch_rank
    cost = mine.schedule.cost
    plain = (1 + THETA * cost.delay_beats + cost.noise) / (1 + problem.system.noise_ratio)
    expected = plain * float(clients.data_weight @ kappa) / (1 - mine.bias)
    assert cost.relative_beats == pytest.approx(expected)
    assert mine.weight is not None


def test_the_bias_of_clients_who_are_alike_is_the_largest():
    problem = some_problem(6, 1, 1.5, system=NEVER_IDLE)
    fleet, rng = fleet_of(problem.clients, problem.system), np.random.default_rng(0)
    weight = rng.dirichlet(np.ones(6))
    apart = weight - fleet.data_weight
    size = np.sqrt((1 - BATCH_NOISE) * fleet.noise) / fleet.data_weight
    most = bias_if_alike(fleet, weight)
    for _ in range(200):  # directions of what clients differ by
        way = rng.normal(size=(6, 3))
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        assert np.sum((apart @ (size[:, None] * way)) ** 2) <= most * (1 + 1e-9)
    assert most > bias_of(fleet, weight)
    # It is attained: all differ by as much, those who lose one way and those who gain the other.
    even = some_problem(
        6, 1, 1.5, columns={"update_second_moment": np.ones(6)}, system=NEVER_IDLE
    )  # fmt: skip
    fleet = fleet_of(even.clients, even.system)
    size = np.sqrt((1 - BATCH_NOISE) * fleet.noise) / fleet.data_weight
    apart = weight - fleet.data_weight
    assert bias_if_alike(fleet, weight) == pytest.approx(np.sum(np.abs(apart) * size) ** 2)


def test_a_plan_whose_bias_has_grown_above_its_limit_is_worth_nothing(biased):
    clients, system, made = biased
    now = beats_seconds(made, clients, system, 0.1)
    assert now == pytest.approx(made.objective_seconds, rel=1e-3)
    noisier = replace(system, noise_ratio=2 * system.noise_ratio)
    assert beats_seconds(made, clients, noisier, 0.1) == np.inf
    assert np.isfinite(beats_seconds(made, clients, noisier, 0.9))
