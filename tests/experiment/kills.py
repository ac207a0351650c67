"""Kill -9 a run at some moment, resume it until it ends, and hold it against the uninterrupted one.

Two kinds of moments: seconds of the clock, whatever the process does then; and places of the code,
entered for the n-th time, for what lasts too short for a clock to meet it.
"""

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np

from fedpace.run_folder.checkpoint import read_checkpoint
from warm import Command

PLACES = {
    "training": ("fedpace.engines.simulated:SimulatedEngine.run_round", 12),
    "aggregating": ("fedpace.federation.rounds:_move", 12),
    "between write and rename": ("os:fsync", 50),
    "renaming": ("pathlib:Path.replace", 50),
    "adding a record": ("fedpace.experiment.run:append_record", 12),
    "checkpointing": ("fedpace.experiment.run:write_progress", 12),
    "saving the adapter": ("fedpace.experiment.run:write_adapter", 2),
    "writing the report": ("fedpace.reporting.report:read_run", 1),
}
"""What the process is doing -> a function, and how often a run calls it at least; at one of the
calls the process is killed."""


def die_at(place, count, before, places=PLACES):
    """Have this process kill itself at the count-th call of a place, before or after it is done."""
    import importlib

    module, _, name = places[place][0].partition(":")
    owner = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    true, calls = getattr(owner, last), [0]

    def counted(*args, **options):
        calls[0] += 1
        if calls[0] == count and before:
            os.kill(os.getpid(), signal.SIGKILL)
        done = true(*args, **options)
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(owner, last, counted)


def prepare_process(how, report):
    """Called in the process that is to die, before the command."""
    if not report:
        without_report()
    if how is not None:
        die_at(*how)


def without_report():
    """Leave the page out: its figures take longer than the run."""
    from fedpace.reporting import report

    report.write_report = lambda folder: folder / "report.html"


def killed_run(place, experiment, folder, how, report=True):
    """Start a run, kill it, and resume until one ends.

    Args:
        place: folder of the experiment file.
        experiment: its name.
        folder: the run folder to make.
        how: seconds after the start, or (place, count, before).
        report: whether the page is written, too.

    Returns:
        Whether the process was killed before it had ended, and what the folder then held.
    """
    said = place / f"{folder.name}.said"
    words = ["run", experiment, "--out", folder]
    if isinstance(how, tuple):
        process = Command(words, place, said, first=partial(prepare_process, how, report))
        process.wait(300)
    else:
        process = Command(words, place, said, first=partial(prepare_process, None, report))
        began = time.monotonic()
        while process.poll() is None and time.monotonic() < began + how:
            time.sleep(0.005)
        process.kill()
        process.wait(60)
    killed = process.poll() == -signal.SIGKILL
    held = state_of(folder)
    if not (folder / "experiment.toml").exists():
        again = ["run", experiment, "--out", folder]  # nothing had begun
    else:
        again = ["run", "--resume", folder]
    first = partial(prepare_process, None, report)
    status = Command(again, place, said, first=first).wait(300)
    assert status == 0, said.read_text()
    return killed, held


def state_of(folder):
    """Say what a killed run left."""
    if not (folder / "experiment.toml").exists():
        return "nothing"
    if list(folder.rglob("*.part")):
        return "a file half written"
    if (folder / "report.html").exists():
        return "everything"
    if (folder / "summary.json").exists():
        return "all but the report"
    rounds = folder / "rounds.jsonl"
    count = rounds.read_text().count("\n") if rounds.exists() else 0
    return f"{count} rounds" if count else "no round"


def differences(folder, whole, methods, report=True):
    """Return what of a run is not that of the other, to the bit."""
    found = []
    names = ["experiment.toml", "clients.csv", "plan.json", "rounds.jsonl"]
    names += ["report.html"] if report else []
    adapters = [path.relative_to(whole) for path in whole.rglob("adapter_model.safetensors")]
    for name in [*names, *adapters]:
        if (folder / name).read_bytes() != (whole / name).read_bytes():
            found.append(str(name))
    one, two = (json.loads((f / "summary.json").read_text()) for f in (folder, whole))
    found += [f"summary {key}" for key in two if one[key] != two[key]]
    for method in methods:
        one, two = (read_checkpoint(f, method) for f in (folder, whole))
        if one.state != two.state:
            found.append(f"checkpoint of {method}")
        for part in ("adapter", "optimizer", "memory"):
            a, b = getattr(one, part), getattr(two, part)
            if a.keys() != b.keys() or any(not np.array_equal(a[n], b[n]) for n in a):
                found.append(f"{part} of {method}")
    left = [p.name for p in Path(folder).rglob("*") if p.name.endswith((".part", ".lock"))]
    return found + [f"{name} is left" for name in left]


def small_files():
    """Called in a process for which no file may grow beyond 4 kB: as on a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))
