"""`fedpace serve` and `fedpace join` as real processes: the same algorithm, and what fails."""

import os
import signal

import numpy as np
import pytest

pytest.importorskip("flwr")

from safetensors.numpy import load_file

import fedpace as fp
from deploy.fleet import Fleet, end
from deploy.processes import wait_until
from fedpace.config import load_experiment
from fedpace.run_folder import read_records

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.torch]
SGD = ("--set", "training.server_optimizer=sgd", "--set", "training.server_learning_rate=0.5")


def adapter(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def same(one, two, tolerance):
    one, two = adapter(one), adapter(two)
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=tolerance)


def records(fleet, name="run"):
    return read_records(fleet.folder / name)


def test_the_adapter_is_that_of_the_virtual_clock(tmp_path):
    with Fleet(tmp_path, method="uniform") as fleet:
        server = fleet.serve(fleet.experiment, *SGD, "--out", "run")
        clients = [fleet.join(n) for n in range(3)]
        end(server)
        for client in clients:
            end(client, 30)
    local = fp.run(load_experiment(fleet.experiment, SGD[1::2]), out=tmp_path / "local")
    same(tmp_path / "run", local.folder, 1e-6)
    ours, theirs = records(fleet), local.records
    assert [[p.client for p in r.participants] for r in ours] == [
        [p.client for p in r.participants] for r in theirs
    ]
    assert [r.upload_bits for r in ours] == [r.upload_bits for r in theirs]
    assert [r.download_bits for r in ours] == [r.download_bits for r in theirs]
    assert (tmp_path / "run" / "report.html").exists()


def test_clients_that_die_are_missed_and_the_run_goes_on(tmp_path):
    """One is killed while the others go on; one of the dead comes back and takes part again."""
    with Fleet(tmp_path, rounds=8) as fleet:
        server = fleet.serve(fleet.experiment, "--out", "run", "--patience", 6)
        first = fleet.join(0)
        second = fleet.join(1)
        fleet.join(2)
        fleet.wait_for("server", "round 1/8")
        os.kill(first.pid, signal.SIGKILL)
        os.kill(second.pid, signal.SIGKILL)
        wait_until(lambda: any(r.missing for r in records(fleet)), "a client being missed", 60)
        fleet.join(1)
        end(server, 240)
    found = records(fleet)
    assert len(found) == 8
    assert [p.client for p in found[0].participants] == [0, 1, 2]
    assert all(2 in [p.client for p in r.participants] for r in found)
    assert [p.client for p in found[-1].participants] in ([1, 2], [2])
    missed = [r for r in found if 0 in r.missing]
    assert missed


def test_a_server_that_is_killed_resumes_and_ends_as_if_it_had_not_been(tmp_path):
    with Fleet(tmp_path, rounds=6) as fleet:
        server = fleet.serve(fleet.experiment, *SGD, "--out", "run")
        clients = [fleet.join(n) for n in range(3)]
        wait_until(lambda: (tmp_path / "run" / "rounds.jsonl").exists() and len(records(fleet)) > 2,
                   "three rounds", 120)  # fmt: skip
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        done = len(records(fleet))
        assert done < 6
        again = fleet.serve("--resume", "run", name="again")
        end(again, 240)
        for client in clients:
            end(client, 60)
    assert [r.round for r in records(fleet)] == list(range(6))
    local = fp.run(load_experiment(fleet.experiment, SGD[1::2]), out=tmp_path / "local")
    same(tmp_path / "run", local.folder, 1e-6)
    # The model was loaded once: the clients lived on.
    assert fleet.said("client-0").count("loading model and data") == 1


def test_a_client_with_another_model_is_refused_at_both_ends(tmp_path):
    from tiny import write_model

    write_model(tmp_path / "other", seed=1)
    with Fleet(tmp_path, clients=1, rounds=1) as fleet:
        fleet.serve(fleet.experiment, "--out", "run")
        client = fleet.join(0, "--model", tmp_path / "other")
        assert client.wait(120) == 2
        assert "weights of model" in fleet.said("client-0")
        fleet.wait_for("server", "refused client-0: the weights of model", 30)


def test_mistakes_are_told_in_one_line(tmp_path):
    with Fleet(tmp_path, clients=1, rounds=1) as fleet:
        nobody = fleet.run("nobody", "join", f"127.0.0.1:{fleet.port}", "--partition", "0/1")
        assert nobody.wait(60) == 2
        assert "cannot be reached" in fleet.said("nobody")
        both = fleet.run("both", "join", "127.0.0.1:1")
        assert both.wait(60) == 2
        assert "--data" in fleet.said("both")
        open_door = fleet.run("open", "serve", fleet.experiment, "--host", "0.0.0.0", "--port",
                              fleet.port)  # fmt: skip
        assert open_door.wait(60) == 2
        assert "certificates" in fleet.said("open")
        first = fleet.serve(fleet.experiment, "--out", "run")
        fleet.wait_for("server", "listening")
        second = fleet.serve(fleet.experiment, "--out", "other", name="second")
        assert second.wait(60) == 2
        assert "choose another --port" in fleet.said("second")
        (tmp_path / "empty").mkdir()
        empty = fleet.run("empty", "join", f"127.0.0.1:{fleet.port}", "--data", "empty")
        assert empty.wait(120) == 2
        assert "no data file here" in fleet.said("empty")
        assert first.poll() is None
