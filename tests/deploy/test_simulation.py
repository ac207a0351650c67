"""The apps of a Flower project in Flower's simulation, whose clients are Ray's processes."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("flwr")

from safetensors.numpy import load_file

import fedpace as fp
from deploy.processes import environment
from fedpace.experiment.config import load_experiment
from fedpace.run_folder.reader import read_records
from tiny import EXPERIMENT, write_experiment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.flower,
    pytest.mark.torch,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray needs fedpace[simulation]"),
]

SCRIPT = """
import sys
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation
from fedpace.deploy import apps

server = ServerApp()


@server.main()
def main(grid, context):
    context.run_config = {"experiment": sys.argv[1], "out": sys.argv[2], "clients": 4}
    apps.main(grid, context)


run_simulation(
    server, apps.client_app, num_supernodes=4,
    backend_config={"init_args": {"num_cpus": 1}, "client_resources": {"num_cpus": 1}},
)
"""


def test_the_adapter_is_that_of_the_virtual_clock(tmp_path):
    text = EXPERIMENT.replace("clients = 6", "clients = 4").replace("rounds = 6", "rounds = 2")
    text = text.replace('"adaptive", "uniform"', '"full"').replace("replan_every = 3", "")
    text = text.replace("[training]", '[training]\nserver_optimizer = "sgd"')
    path = write_experiment(tmp_path, text.replace("rate = 0.02", "rate = 0.5"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(path), str(tmp_path / "run")],
        capture_output=True, text=True, timeout=240, cwd=tmp_path,
        env={**environment(tmp_path / "home"), "RAY_USAGE_STATS_ENABLED": "0"},
    )  # fmt: skip
    assert (tmp_path / "run" / "summary.json").exists(), done.stdout + done.stderr
    local = fp.run(load_experiment(path), out=tmp_path / "local")
    here, there = (
        load_file(folder / "adapter" / "adapter_model.safetensors")
        for folder in (local.folder, tmp_path / "run")
    )
    assert here.keys() == there.keys()
    for name, value in here.items():
        np.testing.assert_allclose(there[name], value, atol=1e-6)
    who = [[p.client for p in r.participants] for r in read_records(tmp_path / "run")]
    assert who == [[p.client for p in r.participants] for r in local.records] and any(who)
