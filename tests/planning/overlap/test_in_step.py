"""Clients that count in the same beats for ever, and the schedule that is not taken for them."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from fedpace import Clients, System, plan
from fedpace.planning.overlap.choice import OVERLAPPING_GAIN
from fedpace.planning.overlap.fleet import fleet_of
from fedpace.planning.overlap.in_step import in_step_share
from fedpace.planning.overlap.simulation import simulate_queue

SYSTEM = System(
    bandwidth_hz=1e6, lora_rank=4, local_steps=2, bits_per_rank=1e4, noise_ratio=5.0,
    allocation="work-conserving",
)  # fmt: skip


def fleet(step_seconds, **more):
    count = len(step_seconds)
    return Clients.from_columns(
        data_weight=np.ones(count), step_seconds=step_seconds,
        spectral_efficiency=np.full(count, 2.0), **more,
    )  # fmt: skip


ALIKE = fleet(np.linspace(30, 36, 12))
UNLIKE = fleet(np.geomspace(3, 100, 12))


@cache
def planned_alike():
    return plan(ALIKE, SYSTEM, schedule="overlapping")


def share_of_the_fullest_beats(made, clients):
    """Of all updates in a long run, those in the beats of the best remainder modulo the cycle."""
    there, rank = fleet_of(clients, SYSTEM), made.sketch_rank.astype(float)
    run = simulate_queue(
        made.sampling_probability, there.ready_seconds(rank), there.work_seconds(rank),
        made.beat_seconds, beats=4000, seed=0,
    )  # fmt: skip
    cycle = round(1 / made.updates_per_beat().mean())
    beats = np.bincount(run.count_beat % cycle, minlength=cycle)
    return beats.max() / beats.sum()


def test_devices_that_are_nearly_alike_count_together_for_ever_and_rounds_wait_for_them():
    beats = planned_alike()
    assert in_step_share(beats, ALIKE) == pytest.approx(1)
    assert share_of_the_fullest_beats(beats, ALIKE) == 1
    assert beats.gain["synchronous"] > OVERLAPPING_GAIN  # the promise, which is not kept
    assert "stay in step" in beats.verdict
    made = plan(ALIKE, SYSTEM, schedule="auto")
    assert made.schedule == "synchronous" and "step" not in made.verdict


def test_devices_that_differ_and_such_as_do_not_always_answer_are_not_in_step():
    beats = plan(UNLIKE, SYSTEM, schedule="overlapping")
    assert in_step_share(beats, UNLIKE) < 0.5 and "in step" not in beats.verdict
    assert plan(UNLIKE, SYSTEM, schedule="auto").schedule == "overlapping"
    away = fleet(np.linspace(30, 36, 12), availability=np.full(12, 0.9))
    assert in_step_share(plan(away, SYSTEM, schedule="overlapping"), away) == 0
    # At the same rates: whoever misses a beat by chance is out of step from there on.
    assert in_step_share(planned_alike(), away) == 0
    assert in_step_share(plan(ALIKE, SYSTEM), ALIKE) == 0  # of rounds that wait


def test_only_those_of_the_same_cycle_are_together():
    beats = planned_alike()
    halves = np.where(np.arange(12) < 5, 1 / 3, 1 / 4) / beats.beat_seconds
    assert in_step_share(replace(beats, updates_per_second=halves), ALIKE) == pytest.approx(7 / 12)
    alone = np.where(np.arange(12) < 1, 1 / 3, 1.0) / beats.beat_seconds
    assert in_step_share(replace(beats, updates_per_second=alone), ALIKE) == 0


def test_a_beat_that_rounds_do_not_use_is_named():
    made = plan(ALIKE, SYSTEM, schedule="auto", beat_seconds=20.0, max_bias=0.1)
    assert made.verdict.endswith("; rounds wait, so beat_seconds and max_bias are not used")
