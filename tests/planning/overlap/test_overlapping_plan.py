"""The objective of overlapping rounds, its limit, and the planner that minimises it."""

from dataclasses import replace

import numpy as np
import pytest

import fedpace as fp
from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.planning.overlap.fleet import fleet_of, grouped_fleet
from fedpace.planning.overlap.objective import cost_of, limit_seconds, schedule_cost
from fedpace.planning.overlap.planner import overlapping
from fedpace.planning.overlap.step import THETA
from fedpace.planning.solver.objective import Problem, relative_rounds
from planning.some_problems import some_clients, some_problem, some_system


def test_beats_in_which_nobody_is_late_cost_what_synchronous_rounds_do():
    clients, system = some_clients(12, availability=np.linspace(0.4, 1, 12)), some_system(12)
    q, k = np.linspace(0.1, 1, 12), np.arange(1.0, 13.0).clip(1, 8)
    for sketch in (SCALED, RESIDUAL):
        shared = replace(system, sketch=sketch)
        cost, law = schedule_cost(q, k, 1e4, clients, shared)
        assert np.all(law.age_beats == 1) and cost.delay_beats == 0
        assert cost.relative_beats == pytest.approx(relative_rounds(q, k, clients, shared))
        assert cost.objective_seconds == pytest.approx(1e4 * cost.relative_beats)


def test_three_clients_worked_out():
    # Ages 1, 2 and 4 beats of 1 s; started at once, at every third and at every second idle beat.
    clients = fp.Clients.from_columns(
        data_weight=[1, 1, 2], step_seconds=[0.5, 1.5, 3.5], spectral_efficiency=[1, 1, 1]
    )
    system = fp.System(bandwidth_hz=1e12, lora_rank=4, local_steps=1, noise_ratio=0.6)
    q = np.array([1.0, 1 / 3, 1 / 2])
    cost, law = schedule_cost(q, np.full(3, 4.0), 1.0, clients, system)
    assert 1 / law.chance == pytest.approx([1, 4, 5])
    assert cost.delay_beats == pytest.approx(0.25 * 1 + 0.5 * 3)
    assert cost.noise == pytest.approx(0.6 * (1 * 1 + 1 * 4 + 4 * 5) / 6)  # a^2: 1, 1, 4 of 6
    assert cost.objective_seconds == pytest.approx((1 + THETA * 1.75 + 2.5) / 1.6)


def test_no_schedule_beats_the_limit_and_some_come_near():
    clients, system = some_clients(12, 1), some_system(12, noise_ratio=1.0)
    limit = limit_seconds(clients, system)
    rng = np.random.default_rng(0)
    for beat in (3.0, 20.0):
        q, k = rng.uniform(0.01, 0.5, 12), rng.integers(1, 9, 12).astype(np.float64)
        assert schedule_cost(q, k, beat, clients, system)[0].objective_seconds > limit
    assert fp.plan(clients, system).objective_seconds > limit
    # All the band, computing next to nothing, much noise: what is left is the noise.
    quick = replace(clients, step_seconds=clients.step_seconds * 1e-6,
                    step_seconds_per_rank=clients.step_seconds_per_rank * 0)  # fmt: skip
    noisy = replace(system, noise_ratio=100.0, overhead_seconds=0.0)
    made = overlapping(Problem(quick, noisy), polish=False)
    assert 1 < made.cost.objective_seconds / limit_seconds(quick, noisy) < 1.4


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_no_random_schedule_is_better(seed):
    problem = some_problem(6, seed)
    made = overlapping(problem)
    assert made.verdict == "converged"
    rng = np.random.default_rng(seed)
    for _ in range(40):
        q = np.clip(made.start_probability * rng.lognormal(sigma=0.5, size=6), 1e-3, 1)
        k = np.clip(made.sketch_rank + rng.integers(-2, 3, 6), 1, 8).astype(np.float64)
        beat = made.beat_seconds * rng.lognormal(sigma=0.2) + 0.0
        beat = max(beat, made.beat_seconds)  # shorter ones are not allowed everywhere
        cost, _ = schedule_cost(q, k, beat, problem.clients, problem.system)
        assert cost.objective_seconds > made.cost.objective_seconds * 0.995


def test_limits_are_kept():
    clients = some_clients(
        20, 2, max_rank=np.where(np.arange(20) % 3, 2, 9), step_joules=np.full(20, 1.0),
        max_joules_per_round=np.linspace(0.2, 5, 20), availability=np.linspace(0.5, 1, 20),
    )  # fmt: skip
    problem = Problem(clients, some_system(20), q_min=0.02)
    made = overlapping(problem)
    assert np.all(made.sketch_rank <= np.minimum(clients.max_rank, 8))
    assert np.all((made.start_probability >= 0.02) & (made.start_probability <= 1))
    assert np.all(5 * made.law.chance <= clients.max_joules_per_round * 1.05)
    assert made.law.utilisation < 0.97
    loose = made.law.p95_age_seconds()
    tight = overlapping(replace(problem, p95_limit_seconds=0.7 * loose, made={}))
    assert tight.verdict == "converged" and tight.law.p95_age_seconds() <= 0.7 * loose
    assert tight.cost.objective_seconds > made.cost.objective_seconds


@pytest.mark.slow
def test_groups_stand_for_their_members():
    clients, system = some_clients(4000, 3), some_system(4000)
    single, groups = fleet_of(clients, system), grouped_fleet(clients, system)
    assert len(groups) <= 2000 and groups.members.sum() == 4000
    assert groups.members @ groups.data_weight == pytest.approx(1)
    rank = np.full(4000, 8.0)
    work = groups.members @ groups.work_seconds(rank[: len(groups)])
    assert work == pytest.approx(single.work_seconds(rank).sum())
    made = overlapping(Problem(clients, system))
    assert made.verdict == "converged" and len(made.start_probability) == 4000
    again = cost_of(single, made.law, made.sketch_rank.astype(np.float64))
    assert again == made.cost and made.law.utilisation < 0.97


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
