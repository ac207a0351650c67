"""Participants trained in several processes: the same bits, and none outlives its parent."""

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import tiny
from fedpace import InputError, RunError, load_experiment, resume, run
from fedpace.core.adapter import ROLES
from fedpace.core.messages import ClientTask
from fedpace.core.sketch import RESIDUAL
from fedpace.experiment import workers
from fedpace.experiment.build import build_model, build_work
from fedpace.experiment.site import in_process
from fedpace.run_folder.checkpoint import read_checkpoint
from fedpace.run_folder.reader import read_records

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tiny.write_experiment(folder)
    return folder


def outcome(folder):
    records = [record.to_json() for record in read_records(folder)]
    return records, [read_checkpoint(folder, m).adapter for m in ("adaptive", "uniform")]


class Elsewhere:
    """A pool whose processes are this one: what crosses to them is pickled, the rest is theirs."""

    def __init__(self, count, context, load, given):
        experiment, label_names, clients = pickle.loads(pickle.dumps(given))
        workers._loaded = experiment, build_model(experiment, label_names), clients
        workers._trainer.cache_clear()

    def submit(self, work, *given):
        done = Future()
        done.set_result(pickle.loads(pickle.dumps(work(*pickle.loads(pickle.dumps(given))))))
        return done


def test_what_crosses_to_a_worker_is_all_it_needs_for_the_same_bits(place, monkeypatch):
    monkeypatch.setattr("fedpace.lora.trainer.MOST_TOGETHER", 2)
    monkeypatch.setattr(workers, "ProcessPoolExecutor", Elsewhere)
    monkeypatch.setattr(workers, "_loaded", None, raising=False)
    experiment = load_experiment(place / "my.toml")
    work = build_work(experiment)
    clients = range(len(work.clients))
    tasks = [ClientTask(n, 3, work.initial_adapter, 1 + n % 4, experiment.seed) for n in clients]
    here = work.make_train(RESIDUAL, ROLES)(tasks)
    there = workers.with_workers(experiment, work, 2).make_train(RESIDUAL, ROLES)(tasks)
    for ours, theirs in zip(there, here, strict=True):
        assert (ours.client, ours.train_loss) == (theirs.client, theirs.train_loss)
        for name, value in theirs.delta.items():
            np.testing.assert_array_equal(ours.delta[name], value)


def test_a_worker_that_was_ended_is_told_with_the_remedy(place, monkeypatch):
    def broken(self, work, *given):
        done = Future()
        done.set_exception(BrokenProcessPool("killed"))
        return done

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Elsewhere)
    monkeypatch.setattr(workers, "_loaded", None, raising=False)
    monkeypatch.setattr(Elsewhere, "submit", broken)
    experiment = load_experiment(place / "my.toml")
    work = build_work(experiment)
    train = workers.with_workers(experiment, work, 2).make_train(RESIDUAL, ROLES)
    with pytest.raises(RunError, match="go on with fewer --workers and --resume"):
        train([ClientTask(0, 0, work.initial_adapter, 2, 0)])


@pytest.mark.slow
def test_a_run_has_the_same_bits_however_many_processes_train(place, monkeypatch):
    monkeypatch.setattr("fedpace.lora.trainer.MOST_TOGETHER", 2)
    experiment = load_experiment(place / "my.toml")
    alone = outcome(run(experiment, out=place / "alone").folder)
    site = partial(in_process, workers=2)
    shared = outcome(run(experiment, out=place / "shared", site=site).folder)
    assert shared[0] == alone[0]
    for ours, theirs in zip(shared[1], alone[1], strict=True):
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value)


def children_of(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_run_leaves_no_process_and_goes_on_with_another_number(place):
    whole = outcome(run(load_experiment(place / "my.toml"), out=place / "whole").folder)
    folder = place / "killed"
    command = [sys.executable, "-m", "fedpace", "run", "my.toml", "--out", "killed"]
    process = subprocess.Popen([*command, "--workers", "2"], cwd=place)
    try:
        while not (folder / "rounds.jsonl").exists() or not (folder / "rounds.jsonl").read_text():
            assert process.poll() is None
            time.sleep(0.02)
        processes = children_of(process.pid)
        assert len(processes) >= 2
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{each}").exists() for each in processes):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)
    resume(folder, site=partial(in_process, workers=1))
    assert outcome(folder)[0] == whole[0]


def test_no_process_at_all_is_refused(place):
    with pytest.raises(InputError, match="--workers is 0; give at least 1"):
        run(load_experiment(place / "my.toml"), out=place / "none",
            site=partial(in_process, workers=0))  # fmt: skip
