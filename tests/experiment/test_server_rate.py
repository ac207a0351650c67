"""A server's rate that falls as the noise of its steps grows."""

import numpy as np
import pytest

pytest.importorskip("torch")

from dataclasses import replace

from experiment.test_overlapping import place
from federation.toy import random_adapter, towards
from fedpace.core.errors import InputError
from fedpace.estimation.noise_scale import SUFFICIENT, estimate_noise_scale, noise_scale
from fedpace.estimation.noise_state import initial_noise_state
from fedpace.experiment.build import check
from fedpace.experiment.config import Scenario
from fedpace.experiment.prepare import prepare
from fedpace.experiment.run import resume, run
from fedpace.experiment.scenario import plan_scenario
from fedpace.experiment.server_rate import rate_factor, tuned_for
from fedpace.planning.overlap.step import THETA
from fedpace.reporting.report import write_report
from fedpace.run_folder.reader import read_run
from toy_work import LAYOUT, toy_experiment, toy_network

pytestmark = pytest.mark.torch
WEIGHT = np.ones(18)
SCHEDULES = {"synchronous": {}, "overlapping": {"beat_seconds": 0.4}}
BY_HAND = {"beat_seconds": 0.4, "beat_rate_factor": 0.7}


def shrinking(tasks):
    """Updates whose common part falls while what clients differ by stays."""
    updates = []
    for t in tasks:
        common, own = random_adapter(9), random_adapter(50 + t.client)
        left = np.float32(0.9**t.round_index)
        goal = {n: left * (common[n] - t.adapter[n]) + own[n] + t.adapter[n] for n in common}
        updates += towards(goal, 0.3)([t])
    return updates


def experiment(schedule, decay="noise", optimizer="adam", rounds=60, **training):
    return toy_experiment(
        methods=["uniform"],
        training={
            "schedule": schedule, "rounds": rounds, "server_optimizer": optimizer,
            "server_learning_rate": 0.05, "server_decay": decay, **SCHEDULES[schedule], **training,
        },
        network={"allocation": "work-conserving", "bandwidth_hz": 3e4},
        planner={"cohort": 0.6},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "optimizer"),
    [
        pytest.param("synchronous", "sgd", marks=pytest.mark.slow),
        ("overlapping", "adam"),
        pytest.param("synchronous", "adam", marks=pytest.mark.slow),
        pytest.param("overlapping", "sgd", marks=pytest.mark.slow),
    ],
)
def test_the_rate_falls_by_the_measured_noise_and_resumes_to_the_same_bits(
    tmp_path, schedule, optimizer
):
    asked = experiment(schedule, optimizer=optimizer)
    whole = run(asked, out=tmp_path / "whole", site=place(weight=WEIGHT, train=shrinking))
    with pytest.raises(KeyboardInterrupt):
        run(asked, out=tmp_path / "cut", site=place(stop_after=40, weight=WEIGHT, train=shrinking))
    cut = resume(tmp_path / "cut", site=place(weight=WEIGHT, train=shrinking))
    assert [r.to_json() for r in cut.records] == [r.to_json() for r in whole.records]

    factor = [record.server_rate_factor for record in whole.records]
    plan = read_run(whole.folder).plans["uniform"][0][1]
    late = THETA * (2 if optimizer == "sgd" else 1) * plan.statistics.get("delay_beats", 0.0)
    useful, known = [], []
    for i in range(len(factor)):
        seen = estimate_noise_scale(whole.records[: i + 1], WEIGHT, LAYOUT.rank)
        low = seen.ratio_interval[0]
        upper = seen.v_full / low if low else np.inf
        for signal in (seen.cross_product, (max(seen.cross_product, 0.0) + upper) / 2):
            noise, signal = seen.v_run, max(signal, 0.0)
            step = 1 / (1 + late + min(noise / signal if signal else np.inf, 99.0))
            useful.append(step * (np.sqrt(signal + noise) if optimizer == "adam" else 1.0))
        known.append(seen.sufficient and np.isfinite(seen.ratio_interval[1]))
    first = known.index(True)
    assert 9 <= first < 30
    for i in range(first + 1):
        assert factor[i] == factor[0]
    for i in range(first + 1, len(factor)):
        expected = factor[0] * min(1.0, (useful[2 * i - 1] / useful[2 * first]) ** 0.75)
        assert factor[i] == pytest.approx(expected, rel=1e-9)
    assert factor[-1] < 0.75 * factor[0]
    assert "server&#39;s rate of uniform fell from" in write_report(whole.folder).read_text()


@pytest.mark.parametrize(
    "schedule", ["synchronous", pytest.param("overlapping", marks=pytest.mark.slow)]
)
def test_until_the_noise_is_known_nothing_is_changed(tmp_path, schedule):
    follows, stays = (
        run(experiment(schedule, decay, rounds=20), out=tmp_path / decay, site=place(weight=WEIGHT))
        for decay in ("noise", "none")
    )
    norms = [[r.lora_squared_norm for r in done.records] for done in (follows, stays)]
    assert norms[0][:11] == norms[1][:11]
    assert len({r.server_rate_factor for r in stays.records}) == 1
    assert "rate of uniform fell" not in write_report(stays.folder).read_text()


class Known:
    """In the place of a renewal: says a noise scale."""

    def __init__(self, cross_product, v_run=8.0, interval=(2.0, 20.0), verdict=SUFFICIENT):
        self.said = noise_scale(initial_noise_state(3), np.full(3, 1 / 3))
        self.said = replace(
            self.said, cross_product=cross_product, v_full=4.0, v_run=v_run,
            ratio_interval=interval, verdict=verdict,
        )  # fmt: skip

    def noise_scale(self):
        return self.said


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_what_the_rate_is_right_for_is_what_a_signal_was_first_seen_at(optimizer):
    """A reading of nothing but noise would be a measure that every later one is above."""
    asked = experiment("synchronous", optimizer=optimizer)
    plan = prepare(asked, place(weight=WEIGHT)).plans["uniform"]
    noise_alone = Known(-0.1, interval=(5.0, np.inf))
    assert np.isnan(tuned_for(asked, plan, noise_alone, np.nan))
    assert np.isnan(tuned_for(asked, plan, Known(1.0, verdict="only 3 rounds"), np.nan))
    first = tuned_for(asked, plan, Known(1.0), np.nan)
    assert first == pytest.approx({"sgd": 1 / 9, "adam": 1 / 3}[optimizer])
    assert tuned_for(asked, plan, Known(5.0), first) == first
    # From what is known: never above where it began, nor at zero; unknown, it stays.
    assert rate_factor(asked, plan, Known(5.0), first) == 1.0
    likely = 0.4  # half of the way to 4 / 5
    useful = {"sgd": 1 / 21, "adam": np.sqrt(8 + likely) / 21}[optimizer]
    left = rate_factor(asked, plan, noise_alone, first)
    assert left == pytest.approx((useful / first) ** 0.75)
    assert rate_factor(asked, plan, Known(1.0, interval=(0.0, np.inf)), first) == 1.0
    assert rate_factor(asked, plan, noise_alone, np.nan) == 1.0


@pytest.mark.parametrize("by_hand", [None, 1.3])
def test_a_rate_begins_at_what_beats_allow_which_may_be_above_the_given_one(by_hand):
    asked = experiment("overlapping", beat_rate_factor=by_hand)
    plan = prepare(asked, place(weight=WEIGHT)).plans["uniform"]
    calm = {**plan.statistics, "delay_beats": 0.0, "beat_noise": 0.5, "tuned_noise": 1.0}
    plan = replace(plan, statistics=calm)
    first = tuned_for(asked, plan, Known(1.0), np.nan)
    allowed = by_hand or np.sqrt(2 / 1.5)
    assert rate_factor(asked, plan, Known(1.0), np.nan) == pytest.approx(allowed)
    assert rate_factor(asked, plan, Known(5.0), first) == pytest.approx(allowed)
    assert rate_factor(asked, plan, Known(0.1, interval=(5.0, 50.0)), first) < 0.9 * allowed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["adaptive", "fedbuff"]}, "server_decay = 'noise' with method 'fedbuff'"),
        ({"methods": ["fedit"]}, "server_decay = 'noise' with method 'fedit'"),
        (
            {"privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-5}},
            r"server_decay = 'noise' with \[privacy\]",
        ),
    ],
)
def test_where_the_noise_is_not_measured_it_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        check(toy_experiment(**{"training": {"server_decay": "noise"}, **changes}))
    check(toy_experiment(**changes))


def test_a_plan_alone_is_refused_for_what_its_run_would_be():
    told = toy_experiment(
        training={"server_decay": "noise"},
        privacy={"clip_norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-5},
    )
    with pytest.raises(InputError, match="server_decay = 'noise' with"):
        plan_scenario(Scenario(**told.model_dump()), toy_network(told, WEIGHT))


def test_a_rate_that_was_to_fall_and_did_not_is_said_in_the_report(tmp_path):
    asked = experiment("synchronous", rounds=5)
    done = run(asked, out=tmp_path / "short", site=place(weight=WEIGHT, train=shrinking))
    assert "rate of uniform did not fall, though" in write_report(done.folder).read_text()


def test_a_rate_given_by_hand_for_beats_falls_from_there(tmp_path):
    asked = experiment("overlapping", **BY_HAND)
    done = run(asked, out=tmp_path / "by-hand", site=place(weight=WEIGHT, train=shrinking))
    factor = [record.server_rate_factor for record in done.records]
    assert factor[0] == max(factor) == 0.7
    assert 0 < factor[-1] < 0.6


def test_a_step_back_halves_what_the_noise_has_left(tmp_path):
    """Updates that are not a number in one round, once the rate has fallen."""

    def broken(tasks):
        updates = shrinking(tasks)
        if tasks and tasks[0].round_index == 50 and not failed:
            failed.append(50)
            delta = {name: np.full_like(part, np.nan) for name, part in updates[0].delta.items()}
            updates[0] = replace(updates[0], delta=delta)
        return updates

    failed = []
    asked = experiment("synchronous", on_divergence="step-back", eval_every=10)
    done = run(asked, out=tmp_path / "back", site=place(weight=WEIGHT, train=broken))
    factor = {record.round: record.server_rate_factor for record in done.records}
    assert [r.stepped_back_to is not None for r in done.records].count(True) == 1
    assert factor[51] == pytest.approx(factor[50] / 2, rel=0.1)
    least = min(f * (1 if i <= 50 else 2) for i, f in factor.items())
    note = f"fell from 1 to {least:.2g} times"
    assert note in write_report(done.folder).read_text()
