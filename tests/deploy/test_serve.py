"""`fedpace serve` and `fedpace join` as real processes: the same algorithm, and what fails."""

import importlib.util
import os
import re
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr")

from safetensors.numpy import load_file

import fedpace as fp
from deploy.fleet import Fleet, end
from deploy.processes import wait_until
from deploy.trouble import other_version, trouble
from fedpace.deploy.tcp_relay import PACKET_BYTES, open_relay
from fedpace.engines.flower.traffic import Traffic
from fedpace.experiment.config import load_experiment
from fedpace.experiment.site import in_process
from fedpace.reporting.report import write_report
from fedpace.run_folder.reader import read_records
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.clients_file import read_clients
from tiny import write_examples, write_model

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.torch]
_SPEC = importlib.util.spec_from_file_location(
    "flower_rounds", Path(__file__).parents[2] / "benchmarks" / "flower_rounds.py"
)
BENCHMARK = importlib.util.module_from_spec(_SPEC)
sys.modules["flower_rounds"] = BENCHMARK
_SPEC.loader.exec_module(BENCHMARK)
PACED = 0
SGD = ("--set", "training.server_optimizer=sgd", "--set", "training.server_learning_rate=0.5")
WATCHED = (*SGD, "--set", "lora.upload_dtype=float32")
"""By their length updates are told from empty messages: 9 kB as float32."""
EVENTS = ("--set", "output.tensorboard=true")


def adapter(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def same(one, two, tolerance):
    one, two = adapter(one), adapter(two)
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=tolerance)


def records(fleet, name="run"):
    return read_records(fleet.folder / name)


def reported_as_a_local_run(run, local, found):
    """TensorBoard has every round at the seconds of the real clock; the page has all sections."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(run / "tensorboard" / "uniform"))
    read.Reload()
    seconds = read.Scalars("round/seconds")
    assert [e.step for e in seconds] == [r.round + 1 for r in found]
    np.testing.assert_allclose([e.wall_time for e in seconds], [r.clock_seconds for r in found])
    np.testing.assert_allclose(
        [e.value for e in seconds], [r.round_seconds for r in found], rtol=1e-6
    )
    assert len(read.Scalars("held_out/loss")) == sum(r.evaluation is not None for r in found)
    pages = (run / "report.html").read_text(), write_report(local).read_text()
    served, expected = (re.findall(r"<h2[^>]*>(.*?)</h2>", page) for page in pages)
    assert len(expected) > 3 and set(expected) <= set(served)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A fleet's folder after a run, and Flower's calls of each client as they passed a relay."""
    folder = tmp_path_factory.mktemp("watched")
    calls = [BENCHMARK.Counter() for _ in range(3)]
    with Fleet(folder, method="uniform", rounds=8) as fleet, ExitStack() as stack:
        server = fleet.serve(fleet.experiment, *WATCHED, *EVENTS, "--out", "run")
        fleet.wait_for("server", "listening")
        relays = [
            stack.enter_context(open_relay("127.0.0.1", fleet.port, watch=each)) for each in calls
        ]
        clients = [
            fleet.join(n, *["--pace"] * (n == PACED), port=relay.port)
            for n, relay in enumerate(relays)
        ]
        end(server)
        for client in clients:
            end(client, 30)
    return fleet, [each.calls for each in calls]


def messages_of(calls):
    """A client's calls by message: each begins where its node is given one."""
    groups = []
    for call in calls:
        if call.name == "send-node-heartbeat" or call.idle or call.early:
            continue
        if call.name == "pull-messages":
            groups.append([])
        groups[-1:] and groups[-1].append(call)
    return groups


def test_the_bytes_at_the_socket_are_those_of_the_record(watched):
    """Of each message between the offer and the end: tasks, small ones here, so that nearly all is
    Flower's own; and empty messages. A busy machine looks for work less often than is charged."""
    fleet, clients = watched
    rounds, about = records(fleet), Traffic()
    empty, asked = 0, [messages_of(calls) for calls in clients]
    for n, groups in enumerate(asked):
        tasks = [p for r in rounds for p in r.participants if p.client == n]
        assert all(p.upload_bytes < 20_000 for p in tasks)
        expected = iter(tasks)
        for group in groups[1:-1]:
            task = max(c.up for c in group) > 2000 and next(expected)
            empty += not task
            charged = (task.upload_bytes, task.download_bytes) if task else (
                about.empty_up, about.empty_down)  # fmt: skip
            np.testing.assert_allclose(BENCHMARK.bytes_of(group), charged, rtol=0.01)
        assert next(expected, None) is None
    first = min(groups[1][0].at for groups in asked)
    last = min(groups[-1][0].at for groups in asked)
    idle = [c for calls in clients for c in calls if c.idle and first <= c.at < last]
    np.testing.assert_allclose(
        BENCHMARK.bytes_of(idle) / len(idle), (about.poll_up, about.poll_down), rtol=0.01
    )
    whole = sum(r.upload_bits / 8 for r in rounds)
    tasks = sum(p.upload_bytes for r in rounds for p in r.participants)
    charged = (whole - tasks - empty * about.empty_up) / about.poll_up
    print(f"{len(idle)} looks for work, {charged:.0f} charged")
    assert 0.3 * charged < len(idle) < 1.05 * charged + len(clients)


def test_a_paced_client_sends_no_faster_than_its_share_and_another_does_not_wait(watched):
    fleet, clients = watched
    rounds, profiles = records(fleet), read_clients(fleet.folder / "run" / "clients.csv")
    shares = {True: [], False: []}
    for n, calls in enumerate(clients):
        bands = [p.bandwidth_hz for r in rounds for p in r.participants if p.client == n]
        pushes = [c for c in calls if c.name.startswith("push")]
        begins = [i for i, c in enumerate(pushes) if c.name == "push-messages"]
        answers = [pushes[i:j] for i, j in zip(begins, begins[1:], strict=False)]
        updates = [each for each in answers if max(c.up for c in each) > 2000]
        for band, answer in zip(bands, updates, strict=True):
            seconds = max(c.sent for c in answer) - answer[0].at
            assigned = rate_bps(np.array([band]), **uplink(profiles, np.array([n])))[0]
            least = 8 * (sum(c.up for c in answer) - PACKET_BYTES) / assigned
            shares[n == PACED].append(seconds / least)
    # Small as these messages are, much of the time is not the link's; test_relay has large ones.
    assert all(0.95 < share < 3.0 for share in shares[True])
    assert min(shares[False]) < 0.5


def with_requests(experiment):
    """The virtual clock, planned for with what Flower's requests take: the same plan."""
    site, about = in_process(experiment), Traffic()
    bits = 8.0 * about.message_up, 8.0 * about.message_down
    return replace(site, work=replace(site.work, request_bits=bits))


def test_the_adapter_is_that_of_the_virtual_clock(watched, tmp_path):
    fleet, _ = watched
    local = fp.run(
        load_experiment(fleet.experiment, WATCHED[1::2]), out=tmp_path / "local", site=with_requests
    )
    same(fleet.folder / "run", local.folder, 1e-6)
    ours, theirs = records(fleet), local.records
    assert [[p.client for p in r.participants] for r in ours] == [
        [p.client for p in r.participants] for r in theirs
    ]
    about = Traffic()
    assert [p.upload_bytes - about.message_up for r in ours for p in r.participants] == [
        p.upload_bytes for r in theirs for p in r.participants
    ]
    assert [p.download_bytes - about.message_down for r in ours for p in r.participants] == [
        p.download_bytes for r in theirs for p in r.participants
    ]
    reported_as_a_local_run(fleet.folder / "run", local.folder, ours)


def test_clients_come_late_and_die_at_any_moment_and_the_run_goes_on(tmp_path):
    """Four clients, each with a trouble of its own; one comes back, and a fifth comes."""
    seen = {}

    def after(what, true, seconds=90):
        """Wait for a round of which something is true; note it for whoever looks with -s."""
        wait_until(lambda: any(map(true, records(fleet))), what, seconds)
        seen[what] = found = next(filter(true, records(fleet)))
        return found

    def soon(n):
        (tmp_path / "soon").write_text(str(len(records(fleet)) + 3))
        (tmp_path / "soon").replace(tmp_path / f"trouble-{n}")

    def joins(n, moment, number):
        return fleet.join(n, first=partial(trouble, moment, number, tmp_path / f"trouble-{n}"))

    def took_part(record):
        return {p.client for p in record.participants}

    with Fleet(tmp_path, clients=4, rounds=10_000) as fleet:
        (tmp_path / "trouble-1").write_text("0")
        server = fleet.serve(fleet.experiment, "--out", "run", "--patience", 4)
        joins(0, "handing over", signal.SIGKILL)
        slow = joins(1, "trained", signal.SIGSTOP)
        joins(2, "training", signal.SIGKILL)
        joins(3, "trained", signal.SIGKILL)

        late = after("an answer after the deadline", lambda r: r.missing, 120)
        assert (late.round, late.missing, took_part(late)) == (0, (1,), {0, 2, 3})
        assert late.round_seconds >= 4
        slow.send_signal(signal.SIGCONT)
        after("the late one in time again", lambda r: 1 in took_part(r))

        soon(2), soon(3)
        half = after("half of all lost at once", lambda r: {2, 3} & set(r.missing))
        assert half.missing == (2, 3) and took_part(half) == {0, 1}

        fleet.join(2)
        write_examples(tmp_path / "own.jsonl", count=30, seed=7)
        fleet.run("new", "join", f"127.0.0.1:{fleet.port}", "--data", "own.jsonl", "--name", "new")
        entered = after("someone new", lambda r: r.entered)
        assert entered.entered == (4,)
        after("its first answer", lambda r: 4 in took_part(r))
        after("someone back", lambda r: r.round > half.round and 2 in took_part(r))

        soon(0)
        gone = after("one lost while handing over", lambda r: 0 in r.missing)
        after("the others", lambda r: r.round > gone.round and took_part(r) == {1, 2, 4})

        server.kill()
        server.wait()
        fleet.serve("--resume", "run", name="again", wait=20)
        known = len(records(fleet))
        after("a server that resumes", lambda r: r.round > known and took_part(r) == {1, 2, 4})
        [line] = [x for x in fleet.said("again").splitlines() if "going on without" in x]
        assert "client-0" in line and "client-3" in line
    names = read_clients(tmp_path / "run" / "clients.csv").client_id.tolist()
    assert names == ["client-0", "client-1", "client-2", "client-3", "new"]
    found = records(fleet)
    assert [r.round for r in found] == list(range(len(found)))
    assert found[half.round + 1].missing == (2, 3)  # the dead, until one is back
    for record in found:  # nobody twice, nobody both here and away
        people = [p.client for p in record.participants]
        assert not set(people) & set(record.missing) and len(people) == len(set(people))
    for what, record in seen.items():
        print(f"{what}: round {record.round + 1}, {record.round_seconds:.1f} s")


def test_a_server_that_is_killed_resumes_and_ends_as_if_it_had_not_been(tmp_path):
    with Fleet(tmp_path, rounds=6) as fleet:
        server = fleet.serve(fleet.experiment, *SGD, "--out", "run")
        clients = [fleet.join(n) for n in range(3)]
        wait_until(lambda: (tmp_path / "run" / "rounds.jsonl").exists() and len(records(fleet)) > 2,
                   "three rounds", 120)  # fmt: skip
        os.kill(server.pid, signal.SIGKILL)
        killed = time.monotonic()
        server.wait()
        done = len(records(fleet))
        assert done < 6
        again = fleet.serve("--resume", "run", name="again")
        fleet.wait_for("again", f"round {done + 1}/6")
        print(f"from the kill to the next round's end: {time.monotonic() - killed:.1f} s")
        end(again, 240)
        for client in clients:
            end(client, 60)
    assert [r.round for r in records(fleet)] == list(range(6))
    local = fp.run(load_experiment(fleet.experiment, SGD[1::2]), out=tmp_path / "local")
    same(tmp_path / "run", local.folder, 1e-6)
    # The model was loaded once: the clients lived on.
    assert fleet.said("client-0").count("loading model and data") == 1


def test_mistakes_are_told_in_one_line_on_the_right_side(tmp_path):
    write_model(tmp_path / "other", seed=1)
    with Fleet(tmp_path, clients=1, rounds=1) as fleet:
        nobody = fleet.run("nobody", "join", f"127.0.0.1:{fleet.port}", "--partition", "0/1",
                           "--wait", 1)  # fmt: skip
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
        here = ("join", f"127.0.0.1:{fleet.port}", "--name")
        refused = [
            (fleet.run("empty", *here, "empty", "--data", "empty"), "no data file here"),
            (fleet.join(0, "--model", tmp_path / "other"), "the weights of model"),
            *(
                (
                    fleet.run(package, *here, package, "--data", "train.jsonl",
                              first=partial(other_version, package)),
                    f"the server has {package} {version(package)}, this client 0.0.1; install the "
                    f"server's here: pip install '{package}=={version(package)}'",
                )
                for package in ("fedpace", "flwr")
            ),
        ]  # fmt: skip
        for client, reason in refused:
            assert client.wait(120) == 2
            wait_until(lambda reason=reason: reason in fleet.said("server"), reason, 30)
        for name, (_, reason) in zip(
            ("empty", "client-0", "fedpace", "flwr"), refused, strict=True
        ):
            assert reason in fleet.said(name)
            [line] = [x for x in fleet.said("server").splitlines() if f"refused {name}: " in x]
            assert reason in line
        assert first.poll() is None
