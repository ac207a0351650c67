"""A model that diverges ends so in record, summary, table and page, and the others go on."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from federation.toy import random_adapter, towards
from fedpace.core.errors import RunError
from fedpace.engines.simulated import SimulatedEngine
from fedpace.experiment.loop import LEAST_STEP_FACTOR
from fedpace.experiment.run import resume, run
from fedpace.experiment.site import Site
from fedpace.reporting.report import write_report
from fedpace.reporting.tables import summary_rows
from fedpace.run_folder.checkpoint import read_checkpoint
from fedpace.run_folder.reader import read_run
from toy_work import toy_experiment, toy_network, toy_work

pytestmark = pytest.mark.torch
WEIGHT = [3.0, 1, 2, 2]
GOOD = towards(random_adapter(9))


def experiment(**training):
    return toy_experiment(
        methods=["full", "flora"],
        training={"rounds": 6, "eval_every": 2, "target": "loss<=0.001", **training},
    )


def site_of(train, evaluate=None, upload_dtype="float32"):
    def site(told):
        work = toy_work(toy_network(told, WEIGHT), train)
        if evaluate is not None:
            work = replace(work, evaluate=evaluate)

        def make_engine(setup, now, renewal):
            return SimulatedEngine(
                setup.train, setup.network, setup.exchange, seed=told.seed, now=now
            )

        return Site(work, make_engine)

    return site


def spoiled(what, value, rounds=(3,)):
    """A trainer of which client 2's answer is not finite in some rounds, whatever the method."""

    def train(tasks):
        updates = GOOD(tasks)
        for n, update in enumerate(updates):
            if update.client == 2 and update.round_index in rounds:
                if what == "loss":
                    updates[n] = replace(update, train_loss=value)
                else:
                    delta = {name: array.copy() for name, array in update.delta.items()}
                    delta[what].flat[0] = value
                    updates[n] = replace(update, delta=delta)
        return updates

    return train


@pytest.mark.parametrize(
    ("what", "value"),
    [("loss", np.nan), ("loss", np.inf), ("head", -np.inf), ("one.B", np.nan), ("one.B", np.inf)],
)
def test_a_value_that_is_not_finite_ends_the_method_and_the_next_one_is_run(what, value, tmp_path):
    done = run(experiment(), out=tmp_path / "run", site=site_of(spoiled(what, value)))
    for method in ("full", "flora"):
        entry = done.summary["methods"][method]
        assert entry["diverged"] == entry["rounds"] == 4
        assert "client 2" in entry["diverged_because"]
        nothing = ("time_to_target_seconds", "rounds_to_target", "final_loss")
        assert [entry[name] for name in nothing] == [None] * 3
        assert done.summary["speedup"][method] is None
        kept = read_checkpoint(done.folder, method)
        assert kept.state["finished"]
        assert all(np.isfinite(value).all() for value in kept.adapter.values())
    json.loads((done.folder / "summary.json").read_text())
    assert [r.to_json() for r in resume(done.folder, site=site_of(GOOD)).records] == [
        r.to_json() for r in done.records
    ]


def test_a_method_that_diverged_is_told_in_table_notes_and_page(tmp_path):
    done = run(experiment(), out=tmp_path / "run", site=site_of(spoiled("head", np.nan)))
    header, rows = summary_rows(done.summary)
    assert [row[1] for row in rows] == ["diverged at round 4"] * 2
    assert "4, diverged" in rows[0]
    notes = read_run(done.folder).notes
    assert any("full diverged at round 4: the " in note and "client 2" in note for note in notes)
    pytest.importorskip("jinja2")
    assert "it diverged at round 4" in write_report(done.folder).read_text()


def test_a_run_of_finite_numbers_says_that_nothing_diverged(tmp_path):
    done = run(experiment(), out=tmp_path / "run", site=site_of(GOOD))
    assert [e["diverged"] for e in done.summary["methods"].values()] == [None, None]
    assert all(r.diverged is None for r in done.records)


@pytest.mark.filterwarnings("ignore:overflow")  # of the toy's own loss
def test_numbers_that_overflow_in_the_servers_step_are_seen(tmp_path):
    """Each value is finite as float32; their weighted sum and squares are not."""
    done = run(experiment(server_learning_rate=3e38), out=tmp_path / "run", site=site_of(GOOD))
    assert done.summary["methods"]["full"]["diverged"] in (1, 2)  # the step, or its evaluation
    huge = run(experiment(), out=tmp_path / "huge", site=site_of(spoiled("head", 3e38)))
    assert huge.summary["methods"]["full"]["diverged"] in (4, 5)


@pytest.mark.parametrize("bad", [{"loss": np.nan}, {"loss": np.inf}])
def test_a_target_is_not_reached_by_an_evaluation_that_is_no_number(bad, tmp_path):
    answers = iter([{"loss": 2.0}, {"loss": 1.0}, bad, *[{"loss": 1.0}] * 9])
    done = run(
        experiment(), out=tmp_path / "run", site=site_of(GOOD, lambda adapter: next(answers))
    )
    entry = done.summary["methods"]["full"]
    assert entry["diverged"] == 4
    assert "the held-out loss is" in entry["diverged_because"]
    assert done.summary["methods"]["flora"]["diverged"] is None


def test_a_model_without_numbers_before_any_training_is_said_at_once(tmp_path):
    with pytest.raises(RunError, match="before any training the held-out loss is nan"):
        run(
            experiment(), out=tmp_path / "run", site=site_of(GOOD, lambda adapter: {"loss": np.nan})
        )


def test_step_back_goes_on_from_the_last_good_adapter_with_half_the_step(tmp_path):
    told = experiment(on_divergence="step-back").model_copy(update={"methods": ["full"]})
    done = run(told, out=tmp_path / "run", site=site_of(spoiled("loss", np.nan)))
    entry = done.summary["methods"]["full"]
    assert entry["diverged"] is None and entry["steps_back"] == 1 and entry["rounds"] == 6
    [back] = [r for r in done.records if r.diverged]
    assert (back.round, back.stepped_back_to) == (3, 2)
    kept = read_checkpoint(done.folder, "full")
    assert kept.state["step_factor"] == 0.5
    # Rounds 5 and 6 from the adapter after round 2, with half the step, written out by hand:
    # the trainer moves 0.3 of the way, the server half of that, and then a quarter.
    start, target = random_adapter(1), random_adapter(9)
    for name, value in kept.adapter.items():
        far = start[name] - target[name]
        left = (1 - 0.3 * 0.5) ** 2 * (1 - 0.3 * 0.25) ** 2
        np.testing.assert_allclose(value, target[name] + left * far, rtol=1e-4, atol=1e-5)
    note = "full stepped back in round 4, to the adapter of round 2"
    assert any(note in told for told in read_run(done.folder).notes)


def test_step_back_gives_up_where_no_step_helps(tmp_path):
    told = experiment(on_divergence="step-back", rounds=30)
    always = spoiled("loss", np.nan, rounds=range(30))
    done = run(told, out=tmp_path / "run", site=site_of(always))
    halvings = int(-np.log2(LEAST_STEP_FACTOR))
    assert done.summary["methods"]["full"]["diverged"] == halvings + 1
    assert done.summary["methods"]["full"]["steps_back"] == halvings


@pytest.mark.parametrize("stop_after", [3, 4, 5])
def test_a_run_that_stepped_back_resumes_to_the_same_bits(stop_after, tmp_path):
    told = experiment(on_divergence="step-back")
    site = site_of(spoiled("loss", np.nan))
    whole = run(told, out=tmp_path / "whole", site=site)

    class Stop(Exception):
        pass

    seen = []

    def show(record, rounds):
        seen.append(record)
        if len(seen) == stop_after:
            raise Stop

    with pytest.raises(Stop):
        run(told, out=tmp_path / "run", site=site, show=show)
    done = resume(tmp_path / "run", site=site)
    assert [r.to_json() for r in done.records] == [r.to_json() for r in whole.records]
    for method in told.methods:
        one, two = (read_checkpoint(d.folder, method) for d in (done, whole))
        assert one.state == two.state
        for a, b in ((one.adapter, two.adapter), (one.optimizer, two.optimizer)):
            assert all(np.array_equal(a[name], b[name]) for name in a)
