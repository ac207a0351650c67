"""What every planner must keep, whatever its method; a new one joins by passing this."""

import dataclasses
import json
from functools import cache

import numpy as np
import pytest

from fedpace.core import sketch as core_sketch
from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.core.profile import ClientProfile, Clients, System
from fedpace.core.rng import rng_for
from fedpace.planning.planner import PLANNERS, SCALED, plan
from fedpace.planning.round_time.distribution import round_time

SYSTEM = System(
    bandwidth_hz=1e6, lora_rank=8, local_steps=4, fixed_bits=1e5, bits_per_rank=2e5,
    noise_ratio=1.0, overhead_seconds=0.3, allocation="equal-finish",
)  # fmt: skip


def population(count=18, seed=0, **changes):
    rng = rng_for(seed, "population", 7)
    columns = {
        "data_weight": rng.lognormal(sigma=0.8, size=count),
        "step_seconds": rng.lognormal(mean=-1, size=count),
        "step_seconds_per_rank": 0.01 * rng.lognormal(size=count),
        "spectral_efficiency": rng.uniform(0.3, 5, size=count),
        "update_second_moment": rng.lognormal(sigma=0.5, size=count),
        "max_rank": rng.choice([2, 4, np.inf], size=count),
    }
    return Clients.from_columns(**{**columns, **changes})


@cache
def planned(planner, seed=0):
    """The plan of one planner for `population(seed=seed)`, made once for all tests."""
    return plan(population(seed=seed), SYSTEM, planner)


@pytest.fixture(params=PLANNERS)
def planner(request):
    return request.param


def test_probabilities_and_ranks_are_within_their_limits(planner):
    clients = population()
    made = plan(clients, SYSTEM, planner, q_min=0.01, predict=False)
    assert made.planner == planner
    assert np.array_equal(made.client_id, clients.client_id)
    assert np.all(made.sketch_rank <= np.minimum(clients.max_rank, SYSTEM.lora_rank))
    assert np.all(made.sketch_rank >= 1)
    if made.draws is None:
        assert np.all((made.sampling_probability >= 0.01) & (made.sampling_probability <= 1))
    else:
        assert made.sampling_probability.sum() == pytest.approx(1)


def test_the_same_problem_gives_the_same_plan(planner):
    assert plan(population(), SYSTEM, planner).to_json() == planned(planner).to_json()


def test_the_plan_is_written_as_json_and_read_back(planner):
    made = planned(planner)
    text = json.dumps(made.to_json(), allow_nan=False)
    assert Plan.from_json(json.loads(text)).to_json() == made.to_json()


def test_the_objective_is_the_mean_round_times_the_relative_rounds(planner):
    clients, made = population(), planned(planner)
    assert made.round_seconds.mean == pytest.approx(round_time(made, clients, SYSTEM).mean)
    assert made.objective_seconds == pytest.approx(made.round_seconds.mean * made.relative_rounds)
    assert 0 <= made.round_seconds.p50 <= made.round_seconds.p95


def test_the_relative_rounds_are_those_of_the_contract(planner):
    """(1 + noise_ratio V/V_full) / (1 + noise_ratio), times kbar for the scaled sketch."""
    clients = population()
    for sketch in (core_sketch.RESIDUAL, core_sketch.SCALED):
        system = dataclasses.replace(SYSTEM, sketch=sketch)
        made = planned(planner) if system == SYSTEM else plan(clients, system, planner)
        a, gamma = clients.data_weight, clients.update_second_moment
        kappa = system.lora_rank / made.sketch_rank
        p, draws = made.sampling_probability, made.draws
        # E[weight^2] / a_n^2: 1/q, or that of a binomial count over K p.
        square = 1 / p if draws is None else 1 + (1 / p - 1) / draws
        noise = np.sum(a**2 * kappa * gamma * square) / np.sum(a**2 * gamma)
        expected = (1 + system.noise_ratio * noise) / (1 + system.noise_ratio)
        if sketch == core_sketch.SCALED:
            expected *= np.sum(a * kappa)
        assert made.relative_rounds == pytest.approx(expected)


def test_full_rank_and_participation_need_one_relative_round():
    made = plan(population(max_rank=np.full(18, np.inf)), SYSTEM, "full")
    assert made.relative_rounds == pytest.approx(1)
    assert np.all(made.sampling_probability == 1)


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_no_planner_beats_exact_on_its_own_objective(planner, seed):
    best = planned("exact", seed).objective_seconds
    assert best <= planned(planner, seed).objective_seconds * (1 + 1e-6)


def test_one_client_alone_is_planned_for(planner):
    made = plan(population(1), SYSTEM, planner)
    assert len(made) == 1 and np.isfinite(made.objective_seconds)


def test_the_order_of_the_clients_does_not_matter(planner):
    clients = population()
    order = np.random.default_rng(1).permutation(len(clients))
    one, two = planned(planner), plan(clients.take(order), SYSTEM, planner)
    assert one.objective_seconds == pytest.approx(two.objective_seconds, rel=2e-3)


def test_a_longer_second_changes_the_times_alone(planner):
    """All times and 1/W in another unit: the same q and k to the solver's accuracy."""
    clients = population()
    slow = Clients.from_columns(
        **{
            **clients.columns(),
            "step_seconds": 60 * clients.step_seconds,
            "step_seconds_per_rank": 60 * clients.step_seconds_per_rank,
        }
    )
    system = dataclasses.replace(
        SYSTEM, bandwidth_hz=SYSTEM.bandwidth_hz / 60, overhead_seconds=18.0
    )
    one, two = planned(planner), plan(slow, system, planner)
    assert two.objective_seconds == pytest.approx(60 * one.objective_seconds, rel=1e-3)


@pytest.mark.parametrize("cohort", [0.03, 0.25, 1.0])
def test_a_cohort_is_the_mean_probability_or_is_refused(planner, cohort):
    clients = population()
    if planner not in SCALED:
        with pytest.raises(InputError, match=rf"cohort = {cohort}: planner '{planner}' chooses"):
            plan(clients, SYSTEM, planner, cohort=cohort)
        return
    made = plan(clients, SYSTEM, planner, cohort=cohort)
    if made.draws is None:
        assert made.sampling_probability.mean() == pytest.approx(cohort, rel=1e-9)
    else:
        assert made.draws == max(1, round(cohort * len(clients)))
    free = planned(planner)
    assert made.objective_seconds >= free.objective_seconds * (1 - 2e-3)
    # The gain compares with the best of the others, held or not.
    theirs = planned("uniform").objective_seconds
    assert made.gain["uniform"] == pytest.approx(theirs / made.objective_seconds, rel=5e-3)


def test_rows_are_planned_for_as_columns_are():
    rows = [ClientProfile("a", 3, 0.1, spectral_efficiency=2.0),
            ClientProfile("b", 1, 0.4, spectral_efficiency=0.5)]  # fmt: skip
    by_rows, by_columns = plan(rows, SYSTEM), plan(Clients.from_profiles(rows), SYSTEM)
    assert by_rows.to_json() == by_columns.to_json()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"planner": "magic"}, "choose one of exact, paper"),
        ({"q_min": 0.0}, "q_min"),
        ({"q_min": 1.5}, "q_min"),
        ({"q_min": np.nan}, "q_min"),
        ({"quantile": 1.0}, "quantile"),
        ({"p95_limit_seconds": -1.0}, "p95_limit_seconds"),
        ({"planner": "uniform", "cohort": 0.0}, "cohort is 0.0"),
        ({"planner": "uniform", "cohort": 1.1}, "cohort is 1.1"),
        ({"planner": "uniform", "cohort": 0.01, "q_min": 0.1}, "q_min = 0.1"),
    ],
)
def test_an_impossible_argument_is_refused_by_name(arguments, message):
    with pytest.raises(InputError, match=message):
        plan(population(), SYSTEM, **arguments)
