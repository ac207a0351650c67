"""Overlapping rounds as a plan: chosen by what is predicted, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

import fedpace as fp
from fedpace.core.errors import InputError
from fedpace.core.plan import Decision, Plan
from fedpace.planning.overlap.described import at_beats
from planning.some_problems import some_clients, some_system


def test_the_schedule_is_chosen_by_what_is_predicted():
    # Computing twenty times as long as others, and data as much: nobody should wait for that.
    clients, system = _spread()
    rounds = fp.plan(clients, system)
    beats = fp.plan(clients, system, schedule="overlapping")
    assert rounds.schedule == "synchronous" and beats.schedule == "overlapping"
    assert beats.gain["synchronous"] == pytest.approx(
        rounds.objective_seconds / beats.objective_seconds
    )
    assert beats.gain["synchronous"] > 1.1
    assert beats.limit_seconds == rounds.limit_seconds < beats.objective_seconds
    assert beats.beat_seconds >= rounds.round_seconds.mean / 4
    assert beats.statistics["tuned_noise"] == pytest.approx(
        rounds.relative_rounds * (1 + system.noise_ratio) - 1
    )
    chosen = fp.plan(clients, system, schedule="auto")
    assert chosen.schedule == "overlapping" and chosen.to_json() == beats.to_json()
    assert Plan.from_json(beats.to_json()).to_json() == beats.to_json()
    given = fp.plan(clients, system, schedule="overlapping", beat_seconds=7.0)
    assert given.beat_seconds == 7.0 and given.objective_seconds >= beats.objective_seconds
    late = fp.plan(
        clients, system, schedule="overlapping", beat_seconds=30.0, p95_limit_seconds=25.0
    )
    assert late.verdict.startswith("infeasible") and late.schedule == "overlapping"
    assert late.gain == {}  # nothing is promised of what breaks a limit
    # One client alone waits for nobody.
    alone = fp.plan(clients.take([0]), replace(system, overhead_seconds=30.0), schedule="auto")
    assert alone.schedule == "synchronous"
    reserved = replace(system, allocation="equal-finish")
    assert fp.plan(clients, reserved, schedule="auto").schedule == "synchronous"
    with pytest.raises(InputError, match="allocation 'equal-finish' divides the band"):
        fp.plan(clients, reserved, schedule="overlapping")


def _spread(**more: np.ndarray) -> tuple[fp.Clients, fp.System]:
    clients = fp.Clients.from_columns(
        data_weight=np.ones(18), step_seconds=np.geomspace(0.2, 4, 18),
        spectral_efficiency=np.full(18, 2.0), **more,
    )  # fmt: skip
    return clients, fp.System(
        bandwidth_hz=4e7, lora_rank=8, overhead_seconds=0.1, allocation="work-conserving"
    )


@pytest.mark.slow
def test_a_limit_that_only_rounds_break_leaves_beats():
    clients, system = _spread()
    asked = {"q_min": 0.02, "p95_limit_seconds": 12.0}
    rounds = fp.plan(clients, system, **asked)
    assert rounds.verdict.startswith("infeasible: the p95 round time")
    for schedule in ("overlapping", "auto"):
        made = fp.plan(clients, system, schedule=schedule, **asked)
        assert made.schedule == "overlapping" and made.verdict == "converged"
        assert made.staleness_seconds.p95 <= 12.0 * (1 + 1e-9)
        assert made.gain == {}  # no plan of rounds keeps the limit
    asked["p95_limit_seconds"] = 1.0  # less than the slowest needs, whom q_min asks for
    assert fp.plan(clients, system, schedule="auto", **asked).verdict.startswith("infeasible")


@pytest.mark.slow
def test_a_looser_limit_is_never_infeasible_where_a_tighter_one_is_kept():
    clients = some_clients(
        24, 2, spread=1.3, max_rank=np.where(np.arange(24) % 3, 2, 9),
        availability=np.linspace(0.5, 1, 24),
    )  # fmt: skip
    system = some_system(24, allocation="work-conserving")
    for limit in (5.19, 7.42):
        made = fp.plan(clients, system, schedule="overlapping", p95_limit_seconds=limit)
        assert made.verdict == "converged" and made.staleness_seconds.p95 <= limit * (1 + 1e-9)


@pytest.mark.slow
def test_energy_is_for_as_long_as_a_round_whatever_the_schedule():
    few = np.arange(18) < 4
    clients, system = _spread(
        step_joules=np.where(few, 1.0, 0.0), max_joules_per_round=np.where(few, 1.0, np.inf)
    )
    rounds, beats = fp.plan(clients, system), fp.plan(clients, system, schedule="overlapping")
    assert beats.binds["energy"][:4].all()
    joules = 5.0  # of an update
    spent = joules * beats.updates_per_second[:4] * rounds.round_seconds.mean
    assert spent == pytest.approx(1.0, rel=1e-6)
    # It pays for q_min once a round, not at every beat of it.
    poor = fp.Clients.from_columns(
        data_weight=np.ones(3), step_seconds=[0.1, 0.2, 0.2], spectral_efficiency=np.full(3, 2.0),
        step_joules=[1.0, 0, 0], max_joules_per_round=[0.055, np.inf, np.inf],
    )  # fmt: skip
    rounds = fp.plan(poor, replace(system, bandwidth_hz=1e7), q_min=0.01)
    for told in ({}, {"beat_seconds": 0.1}, {"max_bias": 0.2}):
        asked = {"schedule": "overlapping", "q_min": 0.01, **told}
        beats = fp.plan(poor, replace(system, bandwidth_hz=1e7), **asked)
        spent = joules * beats.updates_per_second[0] * rounds.round_seconds.mean
        assert 0 < spent <= 0.055 * (1 + 1e-3)


@pytest.mark.slow
def test_a_limit_on_ages_is_kept_by_ranks_and_uses_that_are_in_time():
    # One client is a hundred times too late whatever it does; the others are just in time at a
    # part of their ranks and of the band.
    clients = fp.Clients.from_columns(
        data_weight=np.ones(20), step_seconds=[0.1] * 19 + [100.0],
        spectral_efficiency=np.full(20, 2.0),
    )  # fmt: skip
    system = fp.System(
        bandwidth_hz=1e7, lora_rank=8, noise_ratio=1.0, overhead_seconds=0.02,
        allocation="work-conserving",
    )  # fmt: skip
    for limit in (0.6, 0.65):
        made = fp.plan(clients, system, schedule="overlapping", p95_limit_seconds=limit)
        assert made.verdict == "converged" and made.staleness_seconds.p95 <= limit * (1 + 1e-9)
        assert made.objective_seconds < 60


@pytest.mark.parametrize("changes, message", [
    (dict(schedule="both"), "schedule is 'both'"),
    (dict(schedule="overlapping", planner="uniform"), "planner 'uniform' plans synchronous"),
    (dict(beat_seconds=3.0), "beat_seconds = 3.0: synchronous rounds have no beat"),
    (dict(schedule="overlapping", quantile=0.9), "quantile = 0.9: rounds that overlap have no"),
    (dict(schedule="overlapping", beat_seconds=0.0), "beat_seconds is 0.0"),
    (dict(schedule="overlapping", beat_seconds=np.inf), "beat_seconds is inf"),
    (dict(schedule="overlapping", beat_seconds=0.1), "shorter than the 0.5 s"),
    (dict(schedule="overlapping", beat_seconds=0.6, q_min=1.0), "of the band"),
])  # fmt: skip
def test_bad_schedules_are_named(changes, message):
    clients, system = (
        some_clients(40),
        some_system(40, bandwidth_hz=1e6, allocation="work-conserving"),
    )
    with pytest.raises(InputError) as caught:
        fp.plan(clients, system, **changes)
    assert message in str(caught.value)


def test_a_plan_of_rounds_at_beats_charges_a_limited_client_for_its_share_of_the_band():
    # A Shannon link makes more of each hertz where its band is a quarter of W.
    clients = fp.Clients.from_columns(
        data_weight=[1.0], step_seconds=[0.2], snr_hz=[3e6], max_bandwidth_hz=[5e5]
    )
    system = fp.System(
        bandwidth_hz=2e6, lora_rank=8, local_steps=5, fixed_bits=0.0, bits_per_rank=1e6,
        overhead_seconds=0.1, allocation="work-conserving",
    )  # fmt: skip
    rounds = Plan("uniform", clients.client_id, Decision(np.ones(1), np.array([8])), "converged")
    made = at_beats(rounds, clients, system, 2.0)
    upload = 8e6 / (5e5 * np.log2(1 + 3e6 / 5e5))  # 5.7 s; with 0.1 + 1 s before, 4 beats
    assert made.updates_per_second.tolist() == [1 / 8]
    assert made.staleness_seconds.mean == 8.0
    assert made.band_utilisation == pytest.approx(upload / 4 / 8)
    assert made.statistics["delay_beats"] == 3
    # Planned for beats, a schedule is stated to do the same.
    best = fp.plan(clients, system, schedule="overlapping", beat_seconds=2.0)
    same = replace(rounds, decision=Decision(best.sampling_probability, best.sketch_rank))
    again = at_beats(same, clients, system, 2.0)
    for name in ("band_utilisation", "objective_seconds", "relative_rounds"):
        assert getattr(best, name) == pytest.approx(getattr(again, name))
    assert best.statistics["beat_noise"] == pytest.approx(again.statistics["beat_noise"])


def test_a_beat_too_short_for_its_law_is_named():
    system = some_system(4, allocation="work-conserving", overhead_seconds=0.0)
    with pytest.raises(InputError, match="more than 100,000 beats; give "):
        fp.plan(some_clients(4), system, schedule="overlapping", beat_seconds=1e-9)


def test_a_plan_says_where_more_is_asked_than_the_band_carries():
    clients = fp.Clients.from_columns(
        data_weight=np.ones(6), step_seconds=np.full(6, 0.1), spectral_efficiency=np.full(6, 2.0)
    )
    system = fp.System(
        bandwidth_hz=1e7, lora_rank=8, bits_per_rank=1e6, overhead_seconds=0.0,
        allocation="work-conserving",
    )  # fmt: skip
    rounds = fp.plan(clients, system, planner="full")  # 6 uploads of 0.4 s
    why = "more is asked at a beat than the band carries"
    assert why in at_beats(rounds, clients, system, 1.0).verdict
    assert why not in at_beats(rounds, clients, system, 4.0).verdict
