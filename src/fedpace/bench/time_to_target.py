"""The benchmark: tune every method, run it for every seed, append a line for each result."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fedpace.bench.results import Line, append, identity, read_results
from fedpace.bench.search import Candidate, Choice, tune
from fedpace.bench.suite import Suite
from fedpace.bench.training import Pair, Spec, Trained, train
from fedpace.methods import plans_by_data_alone

Show = Callable[[str, int, int], None]
"""What was finished, how many trainings are done, how many there will be, as far as is known."""


@dataclass(frozen=True, slots=True)
class _Group:
    """A method on a task, on networks that share one training."""

    task: str
    method: str
    networks: tuple[str, ...]


def groups(suite: Suite) -> list[_Group]:
    """Divide the suite into what is tuned together."""
    found = []
    for task in dict.fromkeys(s.task for s in suite.settings):
        networks = suite.networks_of(task)
        for name, entry in suite.methods.items():
            sections = (suite.experiment.get("planner", {}), entry.experiment.get("planner", {}))
            renewed = any(section.get("replan_every") for section in sections)
            held = any("cohort" in size for size in suite.sizes.get(entry.sizes or "", []))
            alone = plans_by_data_alone(entry.method or name, cohort_held=held)
            if alone and not renewed:
                found.append(_Group(task, name, tuple(networks)))
            else:
                found += [_Group(task, name, (network,)) for network in networks]
    return found


def run_suite(
    suite: Suite, name: str, *, folder: Path, results: Path, cores: int, show: Show
) -> int:
    """Run what of a suite has not been run.

    Args:
        suite: the suite.
        name: of the suite, for the lines.
        folder: where finished trainings are kept.
        results: a JSON-lines file; a line for each task, network, rule, method and seed is
            appended, and those that it holds already are left as they are.
        cores: processes, of one thread each.
        show: called whenever something is finished.

    Returns:
        How many lines were added.
    """
    # One thread a process: several processes of one thread do more than one of several.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    known = {identity(line) for line in read_results(results)}
    facts = {"suite": name, "command": " ".join(["fedpace", *sys.argv[1:]]), **_where()}
    added = 0
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        pending: dict[Future[Any], tuple[str, _Group, Any]] = {}
        for group in groups(suite):
            future = pool.submit(tune, suite, group.task, group.method, group.networks, folder)
            pending[future] = ("tuned", group, None)
        total, done = len(pending), 0
        while pending:
            finished, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                what, group, key = pending.pop(future)
                done += 1
                if what == "tuned":
                    for spec, chosen in _final(suite, group, future.result()):
                        pending[pool.submit(_run, suite, spec, folder)] = (
                            "ran",
                            group,
                            (spec, chosen),
                        )
                        total += 1
                else:
                    spec, chosen = key
                    for line in _lines(suite, spec, chosen, future.result()):
                        if identity({**facts, **line}) not in known:
                            append(results, {**facts, **line})
                            added += 1
                show(f"{group.task}, {group.method}: {what}", done, total)
    return added


def _run(suite: Suite, spec: Spec, folder: Path) -> Trained:
    return train(suite, spec, folder, lambda now: False)


def _final(
    suite: Suite, group: _Group, choices: dict[Pair, Choice]
) -> Iterator[tuple[Spec, dict[Pair, Choice]]]:
    """The trainings that the choices ask for: one may serve several networks and rules."""
    shared: dict[Candidate, dict[Pair, Choice]] = {}
    for pair, choice in choices.items():
        shared.setdefault((choice.rate, choice.size), {})[pair] = choice
    for (rate, size), chosen in shared.items():
        for seed in suite.seeds:
            yield Spec(group.task, group.method, group.networks, rate, size, seed, False), chosen


def _lines(
    suite: Suite, spec: Spec, chosen: dict[Pair, Choice], trained: Trained
) -> Iterator[Line]:
    target = suite.tasks[spec.task].target
    metric = "accuracy" if target.startswith("accuracy") else "loss"
    for pair, choice in chosen.items():
        network, rule = pair
        rounds = len(trained.clocks[network][rule])
        yield {
            "task": spec.task,
            "network": network,
            "rule": rule,
            "method": spec.method,
            "kind": suite.methods[spec.method].kind,
            "seed": spec.seed,
            "target": target,
            "rate": dict(spec.rate),
            "size": dict(spec.size),
            "tuning_seconds": choice.seconds,
            "seconds": trained.seconds(pair),
            "end_seconds": trained.end(pair),
            "predicted_seconds": trained.predicted_seconds[network]
            if rule == "equal-finish" else None,
            "predicted_gain": dict(trained.predicted_gain),
            "rounds": rounds,
            "client_updates": trained.client_updates,
            "upload_bits": trained.upload_bits,
            "curve": [[round(t, 2), round(v, 4)] for t, v in trained.curve(pair, metric)],
        }  # fmt: skip


def _where() -> dict[str, str]:
    """What else decides a result: the code, and on what it ran."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "commit": commit,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
