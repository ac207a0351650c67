"""A server's rate that falls as the noise of its steps grows."""

import numpy as np
import pytest

pytest.importorskip("torch")

from experiment.test_overlapping import place
from federation.toy import random_adapter, towards
from fedpace.core.errors import InputError
from fedpace.estimation.noise_scale import estimate_noise_scale
from fedpace.experiment.build import check
from fedpace.experiment.run import resume, run
from fedpace.planning.overlap.step import THETA
from fedpace.reporting.report import write_report
from fedpace.run_folder.reader import read_run
from toy_work import LAYOUT, toy_experiment

pytestmark = pytest.mark.torch
WEIGHT = np.ones(18)
SCHEDULES = {"synchronous": {}, "overlapping": {"beat_seconds": 0.4}}


def shrinking(tasks):
    """Updates whose common part falls while what clients differ by stays."""
    updates = []
    for t in tasks:
        common, own = random_adapter(9), random_adapter(50 + t.client)
        left = np.float32(0.9**t.round_index)
        goal = {n: left * (common[n] - t.adapter[n]) + own[n] + t.adapter[n] for n in common}
        updates += towards(goal, 0.3)([t])
    return updates


def experiment(schedule, decay="noise", optimizer="adam"):
    return toy_experiment(
        methods=["uniform"],
        training={
            "schedule": schedule, "rounds": 60, "server_optimizer": optimizer,
            "server_learning_rate": 0.05, "server_decay": decay, **SCHEDULES[schedule],
        },
        network={"allocation": "work-conserving", "bandwidth_hz": 3e4},
        planner={"cohort": 0.6},
    )  # fmt: skip


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", SCHEDULES)
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
        signal, noise = max(seen.cross_product, 0.0), seen.v_run
        step = 1 / (1 + late + min(noise / signal if signal else np.inf, 99.0))
        useful.append(step * (np.sqrt(signal + noise) if optimizer == "adam" else 1.0))
        known.append(seen.sufficient)
    first = known.index(True)
    assert 9 <= first < 30
    for i in range(first + 1):
        assert factor[i] == factor[0]
    for i in range(first + 1, len(factor)):
        expected = factor[0] * min(1.0, (useful[i - 1] / useful[first]) ** 0.75)
        assert factor[i] == pytest.approx(expected, rel=1e-9)
    assert factor[-1] < 0.6 * factor[0]
    assert "server&#39;s rate of uniform fell from" in write_report(whole.folder).read_text()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_until_the_noise_is_known_nothing_is_changed(tmp_path, schedule):
    follows, stays = (
        run(experiment(schedule, decay), out=tmp_path / decay, site=place(weight=WEIGHT))
        for decay in ("noise", "none")
    )
    norms = [[r.lora_squared_norm for r in done.records] for done in (follows, stays)]
    assert norms[0][:11] == norms[1][:11]
    assert len({r.server_rate_factor for r in stays.records}) == 1
    assert "rate of uniform fell" not in write_report(stays.folder).read_text()


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
