"""Participants trained in several processes: the same bits, and none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import tiny
from fedpace import InputError, load_experiment, resume, run
from fedpace.experiment.site import in_process
from fedpace.run_folder.checkpoint import read_checkpoint
from fedpace.run_folder.reader import read_records

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tiny.write_experiment(folder)
    return folder


def outcome(folder):
    records = [record.to_json() for record in read_records(folder)]
    return records, [read_checkpoint(folder, m).adapter for m in ("adaptive", "uniform")]


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
        workers = children_of(process.pid)
        assert len(workers) >= 2
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)
    resume(folder, site=partial(in_process, workers=1))
    assert outcome(folder)[0] == whole[0]


def test_no_process_at_all_is_refused(place):
    with pytest.raises(InputError, match="--workers is 0; give at least 1"):
        run(load_experiment(place / "my.toml"), out=place / "none",
            site=partial(in_process, workers=0))  # fmt: skip
