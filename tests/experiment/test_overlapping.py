"""Whole runs without waiting: what they refuse, and that they resume to the same bits."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from fedpace.core.errors import InputError
from fedpace.engines.overlapping import OverlappingSimulation
from fedpace.engines.simulated import SimulatedEngine
from fedpace.experiment.run import resume, run
from fedpace.experiment.site import Site
from fedpace.run_folder.checkpoint import read_checkpoint
from toy_work import toy_experiment, toy_network, toy_work

pytestmark = pytest.mark.torch
WEIGHT = np.array([3.0, 1, 2, 2, 5, 4])
LATE = {"schedule": "overlapping", "beat_seconds": 0.4, "rounds": 14}
METHODS = ["uniform", "fedasync", "fedbuff", "ca2fl", "fadas"]


def experiment(**training):
    return toy_experiment(
        methods=METHODS,
        training={**LATE, "buffer_size": 2, "server_optimizer": "adam", **training},
        network={"fading": True, "bandwidth_hz": 3e3},
        planner={"cohort": 0.5},
        lora={"upload_dtype": "int8"},
    )


def place(engine=OverlappingSimulation, stop_after=None):
    """A site whose trainer breaks down after so many calls, as if the process were killed."""

    def site(experiment):
        network = toy_network(experiment, WEIGHT)
        calls = []

        def make_engine(setup, now, renewal):
            def train(tasks):
                calls.append(len(tasks))
                if stop_after is not None and len(calls) > stop_after:
                    raise KeyboardInterrupt
                return setup.train(tasks)

            return engine(train, setup.network, setup.exchange, seed=experiment.seed, now=now)

        return Site(toy_work(network), make_engine)

    return site


@pytest.mark.parametrize("stop_after", [3, 20, 31, 44, 57])
def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(tmp_path, stop_after):
    whole = run(experiment(), out=tmp_path / "whole", site=place())
    with pytest.raises(KeyboardInterrupt):
        run(experiment(), out=tmp_path / "cut", site=place(stop_after=stop_after))
    cut = resume(tmp_path / "cut", site=place())
    assert [r.to_json() for r in cut.records] == [r.to_json() for r in whole.records]
    for method in METHODS:
        a, b = (read_checkpoint(tmp_path / name, method) for name in ("whole", "cut"))
        assert a.state == b.state
        parts = [(c.adapter, c.optimizer, c.memory, c.more["underway"]) for c in (a, b)]
        for x, y in zip(*parts, strict=True):
            assert x.keys() == y.keys()
            assert all(np.array_equal(x[name], y[name]) for name in x)
    late = [r.round - p.started_round for r in whole.records for p in r.participants]
    assert max(late) >= 2
    underway = read_checkpoint(tmp_path / "whole", "uniform").state["underway"]
    assert underway, "nothing underway at the end would prove nothing"
    assert json.dumps(underway)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["fedit"]}, "'fedit' has to wait for all"),
        ({"methods": ["infocom22"]}, "'infocom22' has to wait for all"),
        ({"training": {"server_memory": 0.5}}, "with server_memory has to wait"),
        ({"training": {"beat_seconds": 0.1}}, r"beat_seconds = 0.1 is below .* overhead_seconds"),
        ({"planner": {"replan_every": 3}}, "replan_every = 3"),
    ],
)
def test_what_cannot_overlap_is_refused_in_one_line(tmp_path, changes, message):
    base = {"methods": ["uniform"], "training": LATE}
    merged = {**base, **changes, "training": {**LATE, **changes.get("training", {})}}
    with pytest.raises(InputError, match=message) as error:
        run(toy_experiment(**merged), out=tmp_path / "no", site=place())
    assert "\n" not in str(error.value)
    assert not (tmp_path / "no").exists()


def test_a_beat_of_nothing_is_refused():
    with pytest.raises(InputError, match="beat_seconds"):
        toy_experiment(training={**LATE, "beat_seconds": 0.0})


def test_an_engine_that_can_only_wait_says_so(tmp_path):
    with pytest.raises(InputError, match="virtual clock"):
        run(
            toy_experiment(methods=["uniform"], training=LATE),
            out=tmp_path / "no",
            site=place(SimulatedEngine),
        )
