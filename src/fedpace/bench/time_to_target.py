"""The benchmark: tune every method, run it for every seed, append a line for each result."""

import json
import os
import platform
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fedpace.bench.equal_search import tune_equally
from fedpace.bench.results import Line, append, identity, read_results
from fedpace.bench.search import Candidate, Choice, tune
from fedpace.bench.suite import Suite, experiment_of, keys_of, waits
from fedpace.bench.training import Pair, Spec, Trained, train
from fedpace.core.child import end_with_parent
from fedpace.core.errors import InputError
from fedpace.experiment.methods import plans_by_data_alone

Show = Callable[[str, int, int], None]
"""What was finished, how many trainings are done, how many there will be, as far as is known."""


_CLOCK_ALONE = frozenset({
    "bandwidth_hz", "upload_compute_ratio", "ratio_cohort", "step_spread", "shadowing_db",
    "size_slowness_correlation", "fading", "downlink_bps", "overhead_seconds",
})  # fmt: skip
"""Keys of [network] on which the clock hangs and nothing else, where plans are by data alone.
Clients files have memories and availabilities, scenarios memories; links that change hang on when
a round begins."""


@dataclass(frozen=True, slots=True)
class _Group:
    """A method on a task, on networks that share one training."""

    task: str
    method: str
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Job:
    """Tune a group, or run one training of it."""

    group: _Group
    spec: Spec | None = None
    """None: tune."""
    chosen: Mapping[Pair, Choice] = field(default_factory=dict)
    """What the training is for."""

    @property
    def name(self) -> str:
        what = "tuned" if self.spec is None else f"seed {self.spec.seed}"
        return f"{self.group.task}, {'+'.join(self.group.networks)}, {self.group.method}: {what}"

    def submit(self, pool: ProcessPoolExecutor, suite: Suite, folder: Path) -> Future[Any]:
        group = self.group
        if self.spec is None:
            search = tune if suite.tuning_runs is None else tune_equally
            return pool.submit(search, suite, group.task, group.method, group.networks, folder)
        return pool.submit(_run, suite, self.spec, folder)


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a suite, by names; an empty tuple stands for all."""

    tasks: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()

    def check(self, suite: Suite) -> None:
        """Refuse a name that the suite does not have."""
        for what in ("tasks", "networks", "methods", "seeds"):
            known = getattr(suite, what)
            for name in getattr(self, what):
                if name not in known:
                    raise InputError(
                        f"{name!r} is none of the {what}: {', '.join(map(str, known))}"
                    )

    def seeds_of(self, suite: Suite) -> list[int]:
        """Return the suite's seeds that are wanted."""
        return [seed for seed in suite.seeds if seed in (self.seeds or (seed,))]


def groups(suite: Suite, part: Part) -> list[_Group]:
    """Divide a part of the suite into what is tuned together."""
    found = []
    wanted: dict[tuple[str, str], list[str]] = {}
    for s in suite.settings:
        if s.task in (part.tasks or (s.task,)) and s.network in (part.networks or (s.network,)):
            for name in suite.methods_in(s):
                if name in (part.methods or (name,)):
                    wanted.setdefault((s.task, name), []).append(s.network)
    for (task, name), networks in wanted.items():
        alike: dict[str, list[str]] = {}
        for network in networks:
            # Equal searches may choose otherwise on each network, and so train other candidates.
            shared = suite.tuning_runs is None and _shares(suite, task, network, name)
            alike.setdefault(_decides(suite, task, network) if shared else network, []).append(
                network
            )
        found += [_Group(task, name, tuple(each)) for each in alike.values()]
    return found


def _shares(suite: Suite, task: str, network: str, method: str) -> bool:
    """Whether a method trains the same whatever the speeds of devices and links."""
    every = product(*suite.grid(method))
    made = [
        experiment_of(
            suite, task, network, method, rate=dict(r), size=dict(s), seed=0, tuning=False
        )
        for r, s in every
    ]
    return all(
        waits(each)
        and not each.planner.replan_every
        and each.planner.p95_limit_seconds is None
        and plans_by_data_alone(each.methods[0], cohort_held=each.planner.cohort is not None)
        for each in made
    )


def _decides(suite: Suite, task: str, network: str) -> str:
    """What of a network and its setting a training that is shared may see, as text."""
    table = {k: v for k, v in suite.networks[network].items() if k not in _CLOCK_ALONE}
    return json.dumps([table, suite.setting(task, network).more], sort_keys=True)


def run_suite(
    suite: Suite, name: str, part: Part, *, folder: Path, results: Path, cores: int, show: Show
) -> int:
    """Run what of a suite has not been run.

    Args:
        suite: the suite.
        name: of the suite, for the lines.
        part: which part of it.
        folder: where finished trainings are kept.
        results: a JSON-lines file; a line for each task, network, rule, method and seed is
            appended, and those that it holds already are left as they are.
        cores: processes, of one thread each.
        show: called whenever something is finished.

    Returns:
        How many lines were added.
    """
    part.check(suite)
    # One thread a process: several processes of one thread do more than one of several.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    lines = read_results(results)
    known = {identity(line) for line in lines}
    facts = {"suite": name, "command": " ".join(["fedpace", *sys.argv[1:]]), **_where()}
    added = 0
    # What was tuned is run before the next is tuned: cut off, the results hold whole tasks.
    seeds = part.seeds_of(suite)
    waiting: deque[_Job] = deque()
    for group in groups(suite, part):
        if left := _left(suite, name, group, seeds, known):
            chosen = _chosen_before(suite, name, group, lines)
            waiting.extend([_Job(group)] if chosen is None else _final(group, left, chosen))
    running: dict[Future[Any], _Job] = {}
    total, done = len(waiting), 0
    with ProcessPoolExecutor(cores, get_context("spawn"), end_with_parent) as pool:
        while waiting or running:
            while waiting and len(running) < cores:
                job = waiting.popleft()
                running[job.submit(pool, suite, folder)] = job
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                job = running.pop(future)
                done += 1
                if job.spec is None:
                    left = _left(suite, name, job.group, seeds, known)
                    more = list(_final(job.group, left, future.result()))
                    waiting.extendleft(reversed(more))
                    total += len(more)
                else:
                    for line in _lines(suite, job, future.result()):
                        if identity({**facts, **line}) not in known:
                            append(results, {**facts, **line})
                            added += 1
                show(job.name, done, total)
    return added


def _left(
    suite: Suite, name: str, group: _Group, seeds: Sequence[int], known: set[str]
) -> list[int]:
    """The seeds of which the results lack a line."""
    return [n for n in seeds if not known.issuperset(_identities(suite, name, group, n))]


def _identities(suite: Suite, name: str, group: _Group, seed: int) -> Iterator[str]:
    """What the lines of a group and a seed are known by."""
    for network in group.networks:
        digest = suite.digest(group.task, network, group.method)
        for rule in suite.rules_of(group.method):
            yield identity({
                "suite": name, "digest": digest, "task": group.task, "network": network,
                "rule": rule, "method": group.method, "seed": seed,
            })  # fmt: skip


def _chosen_before(
    suite: Suite, name: str, group: _Group, lines: Sequence[Line]
) -> dict[Pair, Choice] | None:
    """The choices of tuning that lines of other seeds hold: so none is made twice."""
    seeds = {line["seed"] for line in lines}
    every = {id_ for seed in seeds for id_ in _identities(suite, name, group, seed)}
    found: dict[Pair, Choice] = {}
    for line in lines:
        if identity(line) in every:
            rate, size = (keys_of(line[key]) for key in ("rate", "size"))
            choice = Choice(rate, size, line["tuning_seconds"], line.get("tuning"))
            found.setdefault((line["network"], line["rule"]), choice)
    pairs = {(network, rule) for network in group.networks for rule in suite.rules_of(group.method)}
    return found if found.keys() == pairs else None


def _run(suite: Suite, spec: Spec, folder: Path) -> Trained:
    return train(suite, spec, folder, lambda now: False)


def _final(group: _Group, seeds: Sequence[int], choices: dict[Pair, Choice]) -> Iterator[_Job]:
    """The trainings that the choices ask for: one may serve several networks and rules."""
    shared: dict[Candidate, dict[Pair, Choice]] = {}
    for pair, choice in choices.items():
        shared.setdefault((choice.rate, choice.size), {})[pair] = choice
    for (rate, size), chosen in shared.items():
        for seed in seeds:
            spec = Spec(group.task, group.method, group.networks, rate, size, seed, False)
            yield _Job(group, spec, chosen)


def _lines(suite: Suite, job: _Job, trained: Trained) -> Iterator[Line]:
    spec = job.spec
    assert spec is not None
    task, waiting = suite.tasks[spec.task], waits(spec.experiment(suite))
    for pair, choice in job.chosen.items():
        network, rule = pair
        rounds = len(trained.clocks[network][rule])
        yield {
            "digest": suite.digest(spec.task, network, spec.method),
            "task": spec.task,
            "network": network,
            "rule": rule,
            "method": spec.method,
            "kind": suite.methods[spec.method].kind,
            "seed": spec.seed,
            "target": task.target or str(task.hardest),
            "rate": dict(spec.rate),
            "size": dict(spec.size),
            "tuning_seconds": choice.seconds,
            **({} if choice.cost is None else {"tuning": dict(choice.cost)}),
            "seconds": trained.seconds(pair),
            **({"targets": dict(trained.targets(pair))} if task.targets else {}),
            "end_seconds": trained.end(pair),
            "predicted_seconds": trained.predicted_seconds[network]
            if rule == suite.rules_of(spec.method)[0] and waiting else None,
            "predicted_gain": dict(trained.predicted_gain),
            "over_limit": trained.over_limit,
            "rounds": rounds,
            "client_updates": trained.client_updates,
            "upload_bits": trained.upload_bits,
            "computing_seconds": round(trained.computing_seconds, 2),
            "curve": [
                [round(t, 4), round(v, 6)] for t, v in trained.curve(pair, task.hardest.metric)
            ],
        }  # fmt: skip


def _where() -> dict[str, str]:
    """What else decides a result: the code, and on what it ran."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        # The lines that a suite writes change no result.
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "--", ":/",
             ":(top,exclude)benchmarks/results"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        commit += "-dirty" if changed else ""
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "commit": commit,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
