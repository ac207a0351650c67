"""Kill -9 a served run again and again, resume it until it ends, and hold it against one that was
left alone: what the seconds of the day decide apart, it is the same to the bit."""

import signal
import subprocess
import time
from contextlib import suppress
from functools import partial

import numpy as np

from deploy.fleet import Fleet
from experiment.kills import PLACES, die_at, state_of
from fedpace.run_folder.checkpoint import read_checkpoint
from fedpace.run_folder.reader import read_records
from tiny import EXPERIMENT

CLIENTS = 3
SERVED = {
    "sending tasks": ("fedpace.engines.flower.engine:FlowerEngine._send", 3),
    "taking an answer": ("fedpace.engines.flower.engine:FlowerEngine._received", 3),
    "aggregating": (PLACES["aggregating"][0], 3),
    "between write and rename": (PLACES["between write and rename"][0], 9),
    "renaming": (PLACES["renaming"][0], 9),
    "adding a record": (PLACES["adding a record"][0], 3),
    "checkpointing": (PLACES["checkpointing"][0], 3),
}
"""What a server is doing -> a function, and within how many calls of it the server is killed."""
ANYTHING = "anything (random seconds)"
MEMORY = EXPERIMENT.replace("server_learning_rate", "server_memory = 0.5\nserver_learning_rate")
_PATIENCE = 600.0


def fleet_of(folder, rounds):
    folder.mkdir()
    return Fleet(folder, clients=CLIENTS, rounds=rounds, method="full", text=MEMORY)


def left_alone(folder, rounds):
    """Run a fleet to its end; returns the run folder."""
    with fleet_of(folder, rounds) as fleet:
        server = fleet.serve(fleet.experiment, "--out", "run", wait=_PATIENCE)
        for n in range(CLIENTS):
            fleet.join(n)
        assert server.wait(_PATIENCE) == 0, fleet.said("server")
    return folder / "run"


def killed(folder, rounds, kills, rng, show):
    """The same, but the server is killed, every third time all clients with it.

    Args:
        folder: to be made.
        rounds: of the run; each kill takes one to four.
        kills: how many.
        rng: draws the moments.
        show: called with what was killed, what the server did, and what the folder then held.

    Returns:
        The run folder.
    """
    run, places = folder / "run", list(SERVED)
    with fleet_of(folder, rounds) as fleet:
        clients = []
        for number in range(kills + 1):
            begun = (run / "experiment.toml").exists()
            words = ["--resume", "run"] if begun else [fleet.experiment, "--out", "run"]
            if number % 2:
                what, first = ANYTHING, None
            else:
                what = places[(number // 2) % len(places)]
                count, before = int(rng.integers(1, SERVED[what][1] + 1)), bool(rng.integers(2))
                first = partial(die_at, what, count, before, SERVED)
            last = number == kills
            server = fleet.serve(*words, wait=_PATIENCE, first=None if last else first)
            clients = clients or [fleet.join(n) for n in range(CLIENTS)]
            if last:
                assert server.wait(_PATIENCE) == 0, fleet.said("server")
                break
            if first is None:
                _wait_a_while(server, run, rng)
                server.kill()
            assert server.wait(_PATIENCE) == -signal.SIGKILL, fleet.said("server")
            everyone = number % 3 == 2
            for client in clients if everyone else ():
                client.kill()
                client.wait(60)
            clients = [] if everyone else clients
            show("server and clients" if everyone else "server", what, state_of(run))
    return run


def _wait_a_while(server, run, rng):
    """Until a round more is done, half of the time, and some seconds."""
    rounds = run / "rounds.jsonl"
    before, a_round_more = _size(rounds), bool(rng.integers(2))
    while a_round_more and server.poll() is None and _size(rounds) <= before:
        time.sleep(0.05)
    with suppress(subprocess.TimeoutExpired):
        server.wait(float(rng.uniform(0.0, 4.0)))


def _size(file):
    return file.stat().st_size if file.exists() else 0


def differences(run, whole):
    """Return what of a run is not that of the other, to the bit; seconds of the day apart."""
    # Each has its own folder, and names its model and data there.
    asked = [(x / "experiment.toml").read_text().replace(str(x.parent), "") for x in (run, whole)]
    found = [] if asked[0] == asked[1] else ["experiment.toml"]
    for name in ("plan.json", "adapter/adapter_model.safetensors"):
        if (run / name).read_bytes() != (whole / name).read_bytes():
            found.append(name)
    one, two = (list(map(_timeless, read_records(each))) for each in (run, whole))
    found += [f"round {n + 1}" for n, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]
    one, two = (read_checkpoint(each, "full") for each in (run, whole))
    for part in ("adapter", "optimizer", "memory"):
        a, b = getattr(one, part), getattr(two, part)
        if a.keys() != b.keys() or any(not np.array_equal(a[n], b[n]) for n in a):
            found.append(part)
    left = [p.name for p in run.rglob("*") if p.name.endswith((".part", ".lock"))]
    return found + [f"{name} is left" for name in left]


def _timeless(record):
    people = [
        (p.client, p.sketch_rank, p.weight, p.upload_bytes, p.download_bytes, p.train_loss,
         p.lora_squared_norm, p.head_squared_norm)
        for p in record.participants
    ]  # fmt: skip
    return (record.round, people, record.missing, record.train_loss, record.evaluation)
