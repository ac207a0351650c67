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
    clients = fp.Clients.from_columns(
        data_weight=np.ones(18), step_seconds=np.geomspace(0.2, 4, 18),
        spectral_efficiency=np.full(18, 2.0),
    )  # fmt: skip
    system = fp.System(
        bandwidth_hz=4e7, lora_rank=8, overhead_seconds=0.1, allocation="work-conserving"
    )
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
