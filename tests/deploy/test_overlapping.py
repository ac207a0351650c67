"""`fedpace serve` with rounds that overlap: nobody is waited for, late updates count."""

import os
import signal
from functools import partial

import numpy as np
import pytest

pytest.importorskip("flwr")
pytest.importorskip("torch")

from deploy.fleet import Fleet
from deploy.in_memory import run_in_memory
from deploy.processes import wait_until
from deploy.trouble import slow, trouble
from fedpace import run
from fedpace.core.errors import InputError, Interrupted
from fedpace.experiment.config import load_experiment
from fedpace.experiment.prepare import prepare
from fedpace.run_folder.checkpoint import read_checkpoint
from fedpace.run_folder.reader import read_records
from fedpace.wireless.clients_file import read_clients
from tiny import EXPERIMENT

pytestmark = [pytest.mark.flower, pytest.mark.torch]
BEATS = ("training.schedule=overlapping", "training.beat_seconds=0.3")
FAST = ("network.bandwidth_hz=1e9", "network.overhead_seconds=0.05")


def test_a_served_run_moves_at_beats_and_learns_who_answers(tmp_path):
    _, _, done = run_in_memory(tmp_path, *BEATS, "network.bandwidth_hz=1e6", clients=2, rounds=3)
    assert [len(r.participants) for r in done.records] == [2, 2, 2]
    assert {p.started_round for r in done.records for p in r.participants} == {0, 1, 2}
    assert done.summary["methods"]["full"]["schedule"] == "overlapping"
    assert done.summary["clock"] == "measured"
    seen = read_checkpoint(done.folder, "full").state["renewal"]
    assert seen["invited"] == seen["answered"] == [3, 3]
    assert seen["start"]["observations"] == [3, 3], "and how fast they are"
    assert np.all(read_clients(done.folder / "estimates.csv").availability == 1)


@pytest.mark.parametrize("schedule", ["auto", "overlapping"])
def test_a_planned_beat_is_followed(tmp_path, schedule):
    words = ("methods=['adaptive']", f"training.schedule={schedule}", *FAST)
    _, _, done = run_in_memory(tmp_path, *words, clients=3, rounds=2)
    [[_, plan]] = read_checkpoint(done.folder, "adaptive").state["plans"]
    entry = done.summary["methods"]["adaptive"]
    # Devices that were only drawn are no reason for beats; who asks for them has them.
    followed = {"auto": "synchronous"}.get(schedule, schedule)
    kept = load_experiment(done.folder / "experiment.toml").training.schedule
    assert plan["schedule"] == entry["schedule"] == kept == followed


def test_an_asynchronous_method_steps_at_its_arrivals(tmp_path):
    words = ("methods=['fedbuff']", "training.buffer_size=2", "planner.cohort=1")
    _, _, done = run_in_memory(tmp_path, *words, clients=3, rounds=4)
    assert [len(r.participants) >= 2 for r in done.records] == [True] * 4
    assert not any(r.refusals for r in done.records)
    assert done.summary["methods"]["fedbuff"]["schedule"] == "asynchronous"


def test_a_method_with_a_barrier_is_refused_before_anybody_is_waited_for(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text(EXPERIMENT.replace("replan_every = 3", ""))

    def site(experiment):
        raise AssertionError("the clients would be waited for")

    words = ["methods=['fedit']", *BEATS]
    with pytest.raises(InputError, match="'fedit' has to wait for all") as error:
        prepare(load_experiment(path, words), site)
    assert "\n" not in str(error.value)


def test_simulated_nodes_end_where_the_virtual_clock_does_also_after_a_kill(tmp_path):
    """Late updates, rounded at random; the processor adds in another order where all train here."""
    words = (*BEATS, "lora.upload_dtype=int8", "training.beat_seconds=0.4")
    calls = []

    def killed(update):
        calls.append(update.round_index)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return update

    with pytest.raises(Interrupted):
        run_in_memory(tmp_path, *words, clients=3, rounds=8, clock="virtual", spoil={1: killed})
    done = len(read_records(tmp_path / "run"))
    _, _, there = run_in_memory(
        tmp_path, *words, clients=3, rounds=8, clock="virtual", resumed=True
    )
    here = run(load_experiment(there.folder / "experiment.toml"), out=tmp_path / "local")
    assert 0 < done < 8 == len(there.records)
    for one, two in zip(there.records, here.records, strict=True):
        assert one.clock_seconds == two.clock_seconds and one.underway == two.underway
        counted = [
            [(p.client, p.started_round, p.weight, p.upload_bytes) for p in r.participants]
            for r in (one, two)
        ]
        assert counted[0] == counted[1]
    assert max(r.round - p.started_round for r in here.records for p in r.participants) >= 1
    assert there.summary["clock"] == "virtual"
    losses = [[r.evaluation["loss"] for r in x.records if r.evaluation] for x in (there, here)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


@pytest.mark.long
@pytest.mark.slow
def test_the_slow_count_late_the_dead_are_missing_and_a_killed_server_goes_on(tmp_path):
    """Four processes: one takes four seconds for a task, one is killed; then the server is."""

    def records():
        return read_records(tmp_path / "run")

    def counted(client):
        return [r.round - p.started_round for r in records() for p in r.participants
                if p.client == client]  # fmt: skip

    words = [w for o in (BEATS[0], "training.beat_seconds=1.5") for w in ("--set", o)]
    with Fleet(tmp_path, clients=4, rounds=10_000) as fleet:
        server = fleet.serve(fleet.experiment, *words, "--out", "run", "--patience", 60)
        joined = [
            fleet.join(0),
            fleet.join(1),
            fleet.join(2, first=partial(slow, 2.0)),
            fleet.join(3, first=partial(trouble, "training", signal.SIGKILL, tmp_path / "when")),
        ]
        wait_until(lambda: len(counted(2)) >= 2, "two updates of the slow one", 500)
        assert min(counted(2)) >= 1 and counted(0)
        (tmp_path / "soon").write_text(str(len(records()) + 1))
        (tmp_path / "soon").replace(tmp_path / "when")
        assert joined[3].wait(300) == -signal.SIGKILL
        wait_until(lambda: 3 in records()[-1].missing, "the dead one missing", 300)
        before = len(counted(3))
        wait_until(lambda: records()[-1].underway, "somebody at work", 300)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        done = len(records())
        lost = [u["client"] for u in read_checkpoint(tmp_path / "run", "full").state["underway"]]
        again = fleet.serve("--resume", "run", name="again", wait=60)
        wait_until(lambda: len(records()) > done + 1, "beats of the next server", 500)
        assert lost and set(lost) <= set(records()[done].missing)
        late = len(counted(2))
        wait_until(lambda: len(counted(2)) > late, "another late update", 300)
        assert "fedpace serve --resume" not in fleet.said("again")
        again.send_signal(signal.SIGINT)
        assert len(counted(3)) == before
    assert min(counted(2)) >= 1, "never in the beat that it began in"
    found = records()
    assert [r.round for r in found] == list(range(len(found)))
    heavy = [p.weight for r in found for p in r.participants if p.client == 2]
    light = [p.weight for r in found for p in r.participants if p.client == 0]
    assert np.mean(heavy) > 1.5 * np.mean(light), "who counts seldom counts more"
    seen = read_clients(tmp_path / "run" / "estimates.csv").availability
    assert seen[3] < seen[0]
