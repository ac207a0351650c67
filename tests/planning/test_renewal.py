"""The plan is renewed from what the rounds have shown."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.plan import Decision, Plan
from fedpace.core.profile import Clients, System
from fedpace.planning.planner import plan
from fedpace.planning.renewal import expected_seconds, renew_every
from fedpace.planning.renewal_state import MAX_RATIO, RenewalState, informed
from fedpace.planning.round_time.distribution import round_time
from planning.known_noise import KnownNoise
from planning.renewed_world import (
    best_plan,
    objective,
    renewal_of,
    simulate,
    timed,
)
from planning.some_problems import some_clients, some_system


def test_the_plan_stays_and_says_so_until_enough_rounds_are_observed(world, clients, system):
    first = best_plan(clients, system)
    plans, _ = simulate(world, clients, system, renewal_of(clients, system), first, 9)
    assert all(plan is first for plan in plans[:5])
    assert plans[5].verdict == "converged; not renewed: only 5 rounds observed, 10 are the least"
    assert plans[9] is plans[5]
    np.testing.assert_array_equal(plans[9].sampling_probability, first.sampling_probability)


def test_a_wrong_guess_of_the_noise_is_corrected_and_the_plan_is_nearly_the_informed_one(
    world, clients, system
):
    system = replace(system, noise_ratio=0.05)  # a guess 14 times too small
    first = best_plan(clients, system)
    truth = Clients.from_columns(
        **{**clients.columns(), "update_second_moment": world.second_moment}
    )
    known = replace(system, noise_ratio=world.ratio)
    ideal = objective(best_plan(truth, known), truth, known)
    plans, _ = simulate(world, clients, system, renewal_of(clients, system), first, 60)
    assert objective(plans[0], truth, known) > 1.3 * ideal
    assert objective(plans[-1], truth, known) < 1.05 * ideal
    assert plans[-1].verdict == "converged"


def test_the_planner_is_started_from_the_plan_in_force(world, clients, system):
    starts = []

    def spying(clients, system, *, start, predict):
        if not predict:
            starts.append(start)
        return best_plan(clients, system)

    renewal = renew_every(spying, clients, system, every=5, objective=objective)
    plans, _ = simulate(world, clients, system, renewal, best_plan(clients, system), 20)
    assert [any(start is plan for plan in plans) for start in starts] == [True] * len(starts)
    assert starts[0] is plans[9] and starts[1] is plans[14]


def test_on_a_stationary_population_hysteresis_ends_the_oscillation(world, clients, system):
    first = best_plan(clients, system)
    switches, wander = {}, {}
    for threshold in (0.0, 0.02):
        renewal = renewal_of(clients, system, threshold=threshold)
        plans, renewal = simulate(world, clients, system, renewal, first, 300)
        assert renewal.state.planned == 59
        optimum = [p for i, p in enumerate(plans[101:]) if p is not plans[100 + i]]
        switches[threshold] = len(optimum)
        path = np.log([p.sampling_probability for p in plans[100:]])
        wander[threshold] = np.abs(np.diff(path, axis=0)).mean(axis=1).sum()
    assert switches[0.0] >= 30
    assert switches[0.02] == 0
    assert wander[0.02] == 0 < wander[0.0]


def test_nothing_changes_below_the_threshold_and_everything_above_it(world, clients, system):
    first = best_plan(clients, system)
    stubborn = renewal_of(clients, system, threshold=0.99)
    plans, stubborn = simulate(world, clients, system, stubborn, first, 40)
    assert stubborn.state.switched == 0 and stubborn.state.planned == 7
    assert plans[-1].sampling_probability is first.sampling_probability


@pytest.mark.slow
def test_sampling_by_statistics_follows_the_statistics_whatever_time_it_is_predicted_to_cost(
    world, clients, system
):
    def statistics(clients, system, **options):
        return plan(clients, system, "statistics", cohort=0.4, **options)

    renewal = renew_every(statistics, clients, system, every=5, threshold=None)
    first = statistics(clients, system)
    plans, renewal = simulate(world, clients, system, renewal, first, 200)
    assert plans[5] is not first and plans[5].verdict == "converged"
    assert renewal.state.switched == renewal.state.planned == 40
    # Chen et al.: q in proportion to a_n sqrt(Gamma_n), at the true Gamma_n.
    direction = world.data_weight * np.sqrt(world.second_moment)
    free = plans[-1].sampling_probability < 1
    got = np.log(plans[-1].sampling_probability[free] / direction[free])
    before = np.log(first.sampling_probability[free] / direction[free])
    assert got.std() < 0.4 * before.std()


def test_a_resumed_renewal_returns_the_same_plans_bit_for_bit(world, clients, system):
    first, rng = best_plan(clients, system), np.random.default_rng(3)
    records = [
        timed(replace(r, round=i), clients, system)
        for i, r in enumerate(world.rounds(np.full(50, 0.3), 40, rng))
    ]
    whole, plan = renewal_of(clients, system, threshold=0.0), first
    for record in records[:22]:
        plan, whole = whole.after(record, plan)
    state = RenewalState.from_json(json.loads(json.dumps(whole.state.to_json())))
    resumed = replace(renewal_of(clients, system, threshold=0.0), state=state)
    other = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    for record in records[22:]:
        plan, whole = whole.after(record, plan)
        other, resumed = resumed.after(record, other)
    assert plan.to_json() == other.to_json()
    assert whole.state.to_json() == resumed.state.to_json()
    assert whole.state.switched == resumed.state.switched > 1
    assert whole.state.planned == resumed.state.planned


@pytest.mark.slow
def test_with_the_real_planner_a_wrong_guess_is_corrected():
    world = KnownNoise(count=12, apart=2.0, noise=2.0)
    system = System(
        bandwidth_hz=1e6, lora_rank=4, noise_ratio=0.1 * world.ratio, overhead_seconds=1.0
    )
    clients = Clients.from_columns(
        data_weight=world.data_weight,
        step_seconds=np.random.default_rng(0).lognormal(0, 0.7, 12),
        spectral_efficiency=np.full(12, 2.0),
        update_second_moment=world.second_moment,
    )
    known = replace(system, noise_ratio=world.ratio)
    first, ideal = plan(clients, system), plan(clients, known)
    assert expected_seconds(ideal, clients, known) == pytest.approx(
        ideal.objective_seconds, rel=0.05
    )
    renewal = renew_every(plan, clients, system, every=20)
    plans, _ = simulate(world, clients, system, renewal, first, 60)
    last = plans[-1]
    best = expected_seconds(ideal, clients, known)
    assert expected_seconds(first, clients, known) > 1.1 * best
    assert expected_seconds(last, clients, known) < 1.04 * best


def test_a_renewed_plan_has_its_predictions_and_a_refused_one_does_not_cost_them(
    world, clients, system
):
    asked = []

    def replan(clients, system, *, start, predict):
        asked.append(predict)
        return plan(clients, system, "paper", start=start, predict=predict)

    first = plan(clients, system, "paper")
    for threshold, expected in ((0.99, [False]), (0.0, [False, True])):
        asked.clear()
        renewal = renew_every(
            replan, clients, replace(system, noise_ratio=0.05), every=15, threshold=threshold
        )
        plans, _ = simulate(world, clients, system, renewal, first, 15)
        last = plans[-1]
        assert asked == expected
        assert (last is first) == (threshold == 0.99)
        assert last.round_seconds is not None and last.gain


def test_the_expected_seconds_are_those_that_the_planner_states():
    clients, system = some_clients(30), some_system(30)
    for quantile in (None, 0.9):
        made = plan(clients, system, "weighted", quantile=quantile)
        law = round_time(made, clients, system)
        seconds = law.mean if quantile is None else law.quantile(quantile)
        told = expected_seconds(made, clients, system, quantile)
        assert told == pytest.approx(seconds * made.relative_rounds, rel=0.01)


def test_pure_noise_is_planned_for_with_a_finite_ratio(world, clients, system):
    renewal = renewal_of(clients, system)
    noise = replace(renewal.noise_scale(), ratio=np.inf)
    _, seen = informed(renewal.state, clients, system, noise, best_plan(clients, system))
    assert seen.noise_ratio == MAX_RATIO


def test_impossible_settings_are_refused(clients, system):
    with pytest.raises(InputError, match="every is 0"):
        renewal_of(clients, system, every=0)
    with pytest.raises(InputError, match=r"threshold is 1\.5"):
        renewal_of(clients, system, threshold=1.5)


def test_a_bias_of_which_nobody_can_tell_how_large_it_is_is_given_up(world, clients, system):
    """One client a round in the mean: too few products of two for a noise scale."""
    lean = np.linspace(1, 2, 50) / np.linspace(1, 2, 50).sum()
    decision = Decision(
        np.full(50, 0.02), np.full(50, 4), beat_seconds=1.0, aggregation_weight=lean
    )
    first = Plan("test", clients.client_id, decision, "converged; bias 0.1")
    asked = []

    def without(clients, system, *, start, predict):
        asked.append((clients, system))
        assert start.decision is decision and predict
        return best_plan(clients, system)

    stays, gives_up = (renewal_of(clients, system, every=8, unbiased=u) for u in (None, without))
    kept, _ = simulate(world, clients, system, stays, first, 20)
    assert kept[16].decision is first.decision
    plans, _ = simulate(world, clients, system, gives_up, first, 20)
    assert plans[8].decision is first.decision, "eight rounds are too few to tell"
    assert plans[16].aggregation_weight is None
    assert plans[16].verdict.startswith("converged; the bias is given up; not renewed: ")
    assert len(asked) == 1
    assert asked[0][1].noise_ratio == system.noise_ratio, "what was guessed"
    np.testing.assert_array_equal(asked[0][0].update_second_moment, clients.update_second_moment)
