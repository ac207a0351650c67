"""`fedpace testbed` as a person starts it: a server and four clients on a shaped network.

It is killed after its first round, what it left is removed, and it is resumed: so that one test
shows all three in less than a minute of an idle machine. Where the machine cannot shape a network
the test is skipped, and the reason names what is missing and what would help.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr")

from fedpace.experiment.config import load_experiment
from fedpace.testbed.spaces import leftovers, remove
from testbed.shaped import needs_kernel, wait_until
from tiny import EXPERIMENT, write_experiment

HTB_BURST = 1600
"""So many bytes may pass a class at once, whatever its rate."""
SRC = Path(__file__).parents[2] / "src"


def started(*words, cwd):
    command = [sys.executable, "-m", "fedpace", *map(str, words)]
    return subprocess.Popen(
        command, cwd=cwd, env={**os.environ, "PYTHONPATH": str(SRC)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def fedpace(*words, cwd):
    running = started(*words, cwd=cwd)
    out, err = running.communicate(timeout=300)
    return subprocess.CompletedProcess(running.args, running.returncode, out, err)


@needs_kernel
@pytest.mark.slow
@pytest.mark.flower
def test_a_run_on_a_shaped_network_is_measured_beside_what_was_predicted(tmp_path):
    text = EXPERIMENT.replace('"adaptive", "uniform"', '"full"').replace("rounds = 6", "rounds = 3")
    text = text.replace("clients = 6", "clients = 4").replace("replan_every = 3", "")
    text = text.replace("rank = 4", "rank = 16").replace(
        "bandwidth_hz = 1e5",
        "bandwidth_hz = 1e5\ndownlink_bps = 4e6\n"
        'scenario = "cell-mild"\nallocation = "equal-finish"',
    )
    write_experiment(tmp_path, text)
    folder = tmp_path / "run"
    first = started("testbed", "my.toml", "--out", "run", cwd=tmp_path)
    try:
        wait_until(lambda: (folder / "testbed.jsonl").exists(), "the first round", 290)
    finally:
        first.kill()
        first.communicate()  # its output ends when all of its processes have
    (mine,) = (run for run in leftovers() if run.startswith(f"fedpace-{first.pid}-"))
    remove(mine)  # what --clean does for each; other tests' are theirs
    assert not [path for path in Path("/run/netns").iterdir() if path.name.startswith(mine)]
    assert not Path(tempfile.gettempdir(), mine).exists()
    done = fedpace("testbed", "--resume", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(x) for x in (tmp_path / "run" / "testbed.jsonl").read_text().splitlines()]
    records = [json.loads(x) for x in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    assert [each["round"] for each in lines] == [0, 1, 2]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Each round and each client, predicted and measured" in page
    assert "fedpace testbed experiment.toml --method full" in page
    for each, record in zip(lines, records, strict=True):
        assert [c["client"] for c in each["clients"]] == [0, 1, 2, 3]
        assert each["measured_seconds"] == record["round_seconds"]
        for c, p in zip(each["clients"], record["participants"], strict=True):
            assert 0 < c["fetched"] < c["start"] < c["sent"] <= c["finish"]
            # No device is faster than its profile, no upload faster than its class. A busy machine
            # notes a moment some time after it.
            download = 8 * p["download_bytes"] / 4e6
            assert c["start"] - c["fetched"] >= c["predicted_start"] - download - 0.1
            block = c["upload_bytes"] - 11_450 - HTB_BURST
            assert c["finish"] - c["start"] >= 8 * 0.9 * block / c["rate_bps"]
        assert each["measured_seconds"] > 0.9 * each["transfer_seconds"]
    # What the server learns of an uplink, forty times slower than the downlink, is what was set; it
    # was taken for twice as fast where the two were told apart by bytes. A busy machine is slower.
    rates = [{c["client"]: c["rate_bps"] for c in each["clients"]} for each in lines]
    seen = [
        p["upload_seconds"] / (8 * p["upload_bytes"] / rate[p["client"]])
        for record, rate in zip(records, rates, strict=True)
        for p in record["participants"]
    ]
    assert 0.85 < np.median(seen) < 1.5
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["clock"] == "measured"


def test_a_wrong_experiment_is_told_before_anything_is_made(tmp_path):
    (tmp_path / "my.toml").write_text("[network]\nallocation = 'fair'\n")
    done = fedpace("testbed", "my.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "[network] allocation = 'fair'" in done.stderr


def test_the_experiment_of_the_measured_figures_is_as_it_was_measured():
    """Its populations were drawn for a balance that holds for a tenth of the clients."""
    measured = load_experiment(Path(__file__).parents[2] / "benchmarks" / "testbed.toml")
    assert measured.network.ratio_cohort == measured.data.clients / 10
