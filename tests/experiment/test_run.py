"""Whole runs on a tiny but real model: what they write, that they learn, that they resume."""

import json
import shutil
import time

import numpy as np
import pytest

pytest.importorskip("torch")

from safetensors.numpy import load_file

import tiny
from fedpace import InputError, load_experiment, resume, run
from fedpace.core.errors import Interrupted
from fedpace.experiment.loop import play
from fedpace.experiment.methods import planner_options
from fedpace.experiment.prepare import prepare
from fedpace.run_folder.checkpoint import read_checkpoint
from fedpace.run_folder.reader import read_records, read_run
from warm import Command

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tiny.write_experiment(folder)
    return folder


@pytest.fixture(scope="module")
def finished(place):
    return run(load_experiment(place / "my.toml"), out=place / "finished")


def plain(done):
    """The records as JSON types, in which an unknown number equals itself."""
    return [record.to_json() for record in done.records]


def adapter_of(folder, method="adaptive"):
    return read_checkpoint(folder, method).adapter


def test_the_run_folder_holds_what_the_docs_promise(finished):
    names = {path.name for path in finished.folder.iterdir()}
    assert names == {"experiment.toml", "clients.csv", "plan.json", "rounds.jsonl", "summary.json",
                     "adapter", "checkpoint"}  # fmt: skip
    assert not list(finished.folder.rglob("*.part"))
    plans = json.loads((finished.folder / "plan.json").read_text())
    assert list(plans["methods"]) == ["adaptive", "uniform"]
    assert len(plans["methods"]["adaptive"]["sampling_probability"]) == 6
    records = read_records(finished.folder)
    assert [r.method for r in records] == ["adaptive"] * 6 + ["uniform"] * 6
    assert [r.round for r in records] == [*range(6), *range(6)]
    assert load_experiment(finished.folder / "experiment.toml")


def test_every_file_has_the_mode_of_the_umask(finished, tmp_path):
    (tmp_path / "probe").write_text("")
    usual = (tmp_path / "probe").stat().st_mode
    files = [
        path for path in finished.folder.rglob("*") if path.is_file() and not path.is_symlink()
    ]
    assert len(files) > 10
    assert {path.name for path in files if path.stat().st_mode != usual} == set()


def test_a_method_with_a_rule_of_its_own_is_followed_at_every_renewal(place):
    text = (place / "my.toml").read_text()
    path = place / "statistics.toml"
    text = text.replace('["adaptive", "uniform"]', '["statistics", "weighted"]')
    path.write_text(text + "cohort = 0.6\n")  # so that most clients are seen before the renewal
    experiment = load_experiment(path)
    ready = prepare(experiment)
    plans = {name: [p for _, p in play(ready, name)] for name in experiment.methods}
    changes = [n for n in range(1, 6) if plans["statistics"][n] is not plans["statistics"][n - 1]]
    assert changes == [3]  # replan_every = 3, long before our own planner would trust the noise
    first, last = (plans["statistics"][n].sampling_probability for n in (0, -1))
    assert not np.allclose(last / first, (last / first)[0], rtol=0.01)
    assert np.array_equal(first, plans["weighted"][0].sampling_probability)


def test_the_clock_is_the_sum_of_the_rounds_and_the_traffic_that_of_the_participants(finished):
    for method in ("adaptive", "uniform"):
        records = [r for r in finished.records if r.method == method]
        total = np.cumsum([r.round_seconds for r in records])
        np.testing.assert_allclose([r.clock_seconds for r in records], total)
        summary = finished.summary["methods"][method]
        assert summary["upload_bits"] == sum(
            8 * p.upload_bytes for r in records for p in r.participants
        )
        assert summary["rounds"] == 6


def test_the_held_out_loss_falls(place):
    experiment = load_experiment(
        place / "my.toml",
        ["training.rounds=60", "training.eval_every=60", 'methods=["adaptive"]'],
    )
    entry = run(experiment, out=place / "long").summary["methods"]["adaptive"]
    assert entry["final_loss"] < entry["initial_loss"] - 0.2
    assert entry["final_accuracy"] > 0.6


def test_the_adapter_loads_in_peft_to_the_same_tensors(finished, place):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    for method, where in (("adaptive", "adapter"), ("uniform", "adapter/uniform")):
        base = AutoModelForSequenceClassification.from_pretrained(place / "model", num_labels=3)
        loaded = PeftModel.from_pretrained(base, finished.folder / where)
        ours = adapter_of(finished.folder, method)
        theirs = {n: p for n, p in loaded.named_parameters() if n in ours}
        assert theirs.keys() == ours.keys()
        for name, value in ours.items():
            assert torch.equal(theirs[name], torch.from_numpy(value))


def test_the_same_experiment_gives_the_same_bits(finished, place):
    again = run(load_experiment(place / "my.toml"), out=place / "again")
    assert plain(again) == plain(finished)
    for method in ("adaptive", "uniform"):
        one, two = adapter_of(finished.folder, method), adapter_of(again.folder, method)
        assert all(np.array_equal(one[name], two[name]) for name in one)


def test_another_seed_gives_another_result(finished, place):
    other = run(load_experiment(place / "my.toml", ["seed=1"]), out=place / "seed1")
    assert plain(other) != plain(finished)


@pytest.mark.parametrize(
    "stop_after",
    [pytest.param(1, marks=pytest.mark.slow), 4, pytest.param(8, marks=pytest.mark.slow)],
)
def test_a_run_stopped_between_rounds_resumes_to_the_same_bits(finished, place, stop_after):
    class Stop(Exception):
        pass

    seen = []

    def show(record, rounds):
        seen.append(record)
        if len(seen) == stop_after:
            raise Stop

    folder = place / f"stopped{stop_after}"
    experiment = load_experiment(place / "my.toml", ["output.checkpoint_every=2"])
    with pytest.raises(Stop):
        run(experiment, out=folder, show=show)
    done = resume(folder)
    assert plain(done) == plain(finished)
    assert done.summary["methods"] == finished.summary["methods"]
    for method in ("adaptive", "uniform"):
        one, two = adapter_of(finished.folder, method), adapter_of(folder, method)
        assert all(np.array_equal(one[name], two[name]) for name in one)
    mine = load_file(folder / "adapter" / "adapter_model.safetensors")
    theirs = load_file(finished.folder / "adapter" / "adapter_model.safetensors")
    assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_a_process_killed_at_any_moment_resumes_to_the_same_bits(finished, place):
    for moment in range(3):
        folder = place / f"killed{moment}"
        process = Command(["run", "my.toml", "--out", folder], place, place / "said")
        rounds = folder / "rounds.jsonl"
        deadline = time.monotonic() + 120
        while not (rounds.exists() and rounds.read_text().count("\n") > 3 * moment):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.002)
        process.kill()
        process.wait()
        done = resume(folder)
        assert plain(done) == plain(finished)
        one, two = adapter_of(finished.folder), adapter_of(folder)
        assert all(np.array_equal(one[name], two[name]) for name in one)


def test_a_finished_run_resumes_to_itself(finished):
    assert plain(resume(finished.folder)) == plain(finished)


def test_a_method_played_without_a_folder_gives_the_records_of_the_run(finished, place):
    experiment = load_experiment(place / "my.toml")
    played = [r for r, _ in play(prepare(experiment), "uniform")]
    recorded = [r for r in read_records(finished.folder) if r.method == "uniform"]
    assert [r.to_json() for r in played] == [r.to_json() for r in recorded]


def test_a_target_ends_the_run_at_the_evaluation_that_reaches_it(finished, place):
    first = next(r for r in finished.records if r.method == "uniform" and r.evaluation)
    goal = first.evaluation["accuracy"]
    assert goal > finished.summary["methods"]["uniform"]["initial_accuracy"]
    experiment = load_experiment(
        place / "my.toml", [f"training.target=accuracy>={goal}", 'methods=["uniform"]']
    )
    entry = run(experiment, out=place / "target").summary["methods"]["uniform"]
    assert entry["rounds_to_target"] == entry["rounds"] == 2


def test_a_target_that_holds_before_training_is_refused_and_nothing_is_written(finished, place):
    known = finished.summary["methods"]["uniform"]["initial_loss"]
    held = load_experiment(place / "my.toml", [f"training.target=loss<={known}"])
    out = place / "held"
    with pytest.raises(InputError) as caught:
        run(held, out=out)
    assert str(caught.value) == (
        f"[training] target = 'loss<={known}': the model has loss {known:.4g} before training, so "
        "no time to the target can be measured; lower the target"
    )
    assert not out.exists()
    # Cut off before its first checkpoint, it is a run that has not begun.
    out.mkdir()
    (out / "experiment.toml").write_text(held.to_toml())
    with pytest.raises(InputError, match="before training"):
        resume(out)


def test_resume_refuses_a_folder_of_another_experiment_naming_the_key(finished, place):
    other = load_experiment(place / "my.toml", ["training.rounds=9"])
    with pytest.raises(InputError, match=r"\[training\] rounds is 6 there and 9 here"):
        resume(finished.folder, experiment=other)


def test_resume_refuses_changed_data(finished, place, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.folder, copy)
    toml = (copy / "experiment.toml").read_text().replace("alpha = 1.0", "alpha = 2.0")
    (copy / "experiment.toml").write_text(toml)
    with pytest.raises(InputError, match="other shares of the clients and tokens"):
        resume(copy)


def test_resume_refuses_other_base_weights_and_another_population(finished, place, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.folder, copy)
    weights = place / "model" / "model.safetensors"
    kept = weights.read_bytes()
    try:
        tiny.write_model(place / "model", seed=1)
        with pytest.raises(InputError, match="made with other base weights than are found now"):
            resume(copy)
    finally:
        weights.write_bytes(kept)
    toml = (copy / "experiment.toml").read_text()
    (copy / "experiment.toml").write_text(toml.replace("cell-balanced", "cell-link-bound"))
    with pytest.raises(InputError, match=r"clients.csv and \[network\] are not the same clients: "
                                         r"\w+ of client 0 is .* there, .* now"):  # fmt: skip
        resume(copy)
    (copy / "experiment.toml").write_text(toml)
    resume(copy)


def test_resume_writes_all_that_a_run_writes(finished, tmp_path):
    """Killed after experiment.toml, and after the last file that is written before the rounds."""
    names = ["experiment.toml", "clients.csv", "plan.json"]
    for count in (1, 3):
        copy = tmp_path / str(count)
        copy.mkdir()
        for name in names[:count]:
            shutil.copy(finished.folder / name, copy / name)
        assert plain(resume(copy)) == plain(finished)
        for name in (*names, "rounds.jsonl"):
            assert (copy / name).read_bytes() == (finished.folder / name).read_bytes()
        read_run(copy)


def test_resume_says_which_records_are_lost(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.folder, copy)
    lines = (copy / "rounds.jsonl").read_text().splitlines(keepends=True)
    (copy / "rounds.jsonl").write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(InputError, match=r"6 rounds of adaptive .*\(round 3 is the first missing"):
        resume(copy)


def test_a_damaged_checkpoint_gives_a_line_and_the_same_bits(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.folder, copy)
    path = copy / "checkpoint" / "uniform.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    told = []
    done = resume(copy, note=told.append)
    assert plain(done) == plain(finished)
    assert len(told) == 1 and "uniform.safetensors is damaged" in told[0]
    one, two = (adapter_of(f, "uniform") for f in (copy, finished.folder))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_the_summary_says_which_clock_which_command_which_classes(finished):
    summary = finished.summary
    assert (summary["clock"], summary["command"]) == ("virtual", "fedpace run")
    assert summary["label_names"] == ["class 0", "class 1", "class 2"]
    assert summary["model"]["pooling"] == "model" and summary["model"]["layers"] is None


def test_a_mistake_leaves_no_folder_behind(place):
    experiment = load_experiment(place / "my.toml", ["data.clients=1000"])
    with pytest.raises(InputError):
        run(experiment, out=place / "deep" / "down")
    assert not (place / "deep").exists()


def test_resume_refuses_what_is_no_run_folder(tmp_path):
    with pytest.raises(InputError, match=r"no experiment\.toml"):
        resume(tmp_path)


def test_a_folder_that_is_not_empty_is_left_alone(place):
    before = sorted(path.name for path in place.iterdir())
    with pytest.raises(InputError, match="exists and is not empty"):
        run(load_experiment(place / "my.toml"), out=place)
    assert sorted(path.name for path in place.iterdir()) == before


def test_curves_are_columns_of_the_evaluations(finished):
    table = finished.curves()
    rows = list(zip(*table.values(), strict=True))
    assert list(table) == ["method", "round", "clock_seconds", "upload_bits", "accuracy", "loss"]
    assert [row[:2] for row in rows] == [(m, n) for m in ("adaptive", "uniform") for n in (2, 4, 6)]
    last = finished.summary["methods"]["uniform"]
    assert rows[-1][-1] == pytest.approx(last["final_loss"])


def test_evaluations_follow_the_clock_where_seconds_are_given(place):
    every = 0.4 * run(load_experiment(place / "my.toml", ['methods=["uniform"]']),
                      out=place / "by-rounds").records[-1].clock_seconds  # fmt: skip
    experiment = load_experiment(
        place / "my.toml", [f"training.eval_seconds={every!r}", 'methods=["uniform"]']
    )
    records = run(experiment, out=place / "by-seconds").records
    clock = [r.clock_seconds for r in records]
    first = [next(i for i, t in enumerate(clock) if t >= m * every) for m in (1, 2)]
    assert [i for i, r in enumerate(records) if r.evaluation] == sorted({*first, len(clock) - 1})


def test_tensorboard_files_hold_every_round_on_the_virtual_clock(place):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    experiment = load_experiment(
        place / "my.toml", ["output.tensorboard=true", 'methods=["uniform"]']
    )
    done = run(experiment, out=place / "events")
    read = events.EventAccumulator(str(done.folder / "tensorboard" / "uniform"))
    read.Reload()
    seconds = read.Scalars("round/seconds")
    assert [e.step for e in seconds] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(
        [e.wall_time for e in seconds], [r.clock_seconds for r in done.records]
    )
    held_out = [e.value for e in read.Scalars("held_out/loss")]
    np.testing.assert_allclose(
        held_out, [r.evaluation["loss"] for r in done.records if r.evaluation], rtol=1e-6
    )


def test_a_cohort_holds_the_methods_that_leave_it_open(place):
    held = load_experiment(
        place / "my.toml", ["planner.cohort=0.5", 'methods=["adaptive", "uniform"]']
    )
    assert planner_options(held, "uniform")["cohort"] == 0.5
    assert planner_options(held, "adaptive")["cohort"] is None
    with pytest.raises(InputError, match="add one of uniform, weighted"):
        planner_options(load_experiment(place / "my.toml", ["planner.cohort=0.5",
                        'methods=["adaptive", "full"]']), "adaptive")  # fmt: skip


def test_mlflow_has_a_run_for_each_method_also_after_an_interruption(place, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    store = (place / "store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    experiment = load_experiment(place / "my.toml", ["output.mlflow=true"])

    def stop(record, rounds):
        if record.method == "uniform" and record.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        run(experiment, out=place / "tracked", show=stop)
    done = resume(place / "tracked")
    client = mlflow.MlflowClient(store)
    [found] = client.search_experiments(filter_string="name = 'fedpace'")
    runs = {r.info.run_name: r for r in client.search_runs([found.experiment_id])}
    assert set(runs) == {"adaptive", "uniform"}
    for method, each in runs.items():
        assert each.info.status == "FINISHED" and each.data.params["lora.rank"] == "4"
        points = client.get_metric_history(each.info.run_id, "round/seconds")
        seen = {p.step: (p.value, p.timestamp) for p in points}
        assert seen == {
            r.round + 1: (pytest.approx(r.round_seconds), int(1000 * r.clock_seconds))
            for r in done.records if r.method == method
        }  # fmt: skip
