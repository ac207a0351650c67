"""One training of the benchmark, kept in a file, so that an interrupted benchmark goes on."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedpace.bench.crossing import Curve, measured, seconds_to
from fedpace.bench.replay import round_seconds
from fedpace.bench.suite import Keys, Suite, experiment_of, waits
from fedpace.core.plan import Plan
from fedpace.core.target import Target
from fedpace.experiment.build import network_of
from fedpace.experiment.config import Experiment
from fedpace.experiment.loop import play
from fedpace.experiment.methods import make_plan
from fedpace.experiment.prepare import Prepared, prepare
from fedpace.planning.round_time.distribution import round_time
from fedpace.run_folder.atomic import write_text
from fedpace.wireless.network import Network, planning_clients

Pair = tuple[str, str]
"""A network and a rule for the band."""
Clocks = Mapping[str, Mapping[str, Sequence[float]]]
"""Network -> rule -> the clock at the end of each round, s."""
Evaluations = Sequence[tuple[int, Mapping[str, float]]]
"""(rounds done, what was measured then)."""
Goals = Mapping[str, float | None]
"""Target -> the clock at which it was reached, s, or None."""
Beaten = Callable[[Mapping[Pair, Sequence[float]]], bool]
"""By pair, the least clock at which each target is or can still be reached, s -> whether to stop,
as no pair is left to win."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Which training."""

    task: str
    method: str
    networks: tuple[str, ...]
    """It is planned for the first and charged on all; more than one where the plan is the same."""
    rate: Keys
    """Keys of [training]."""
    size: Keys
    """Keys of [planner]."""
    seed: int
    tuning: bool

    def experiment(self, suite: Suite) -> Experiment:
        """Put together what is run."""
        return experiment_of(
            suite, self.task, self.networks[0], self.method, rate=dict(self.rate),
            size=dict(self.size), seed=self.seed, tuning=self.tuning,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a training."""

    ended: str
    """"target", "budget", or "beaten": no pair left on which it could still be the first."""
    clocks: Clocks
    """Network -> rule -> the clock at the end of each round, s."""
    predicted_seconds: Mapping[str, float]
    """Network -> the planner's prediction of the clock at the end, by the method's first rule, s; 0
    where rounds do not wait for all: a beat takes what it takes."""
    predicted_gain: Mapping[str, float]
    """What the first plan promises over others, by planner, on the first network."""
    evaluations: Evaluations
    """(rounds done, what was measured then)."""
    client_updates: int
    upload_bits: int
    computing_seconds: float
    """Processor seconds of this machine."""
    over_limit: float | None = None
    """Planned time over the least that any scheme could need on the first network's band; None
    where the first plan says neither."""
    reached: Mapping[str, Mapping[str, Goals]] = field(default_factory=dict)
    """With several targets: network -> rule -> target -> the clock at which the smoothed
    curve crosses it, s, or None."""

    def targets(self, pair: Pair) -> Goals:
        """Return when each of several targets was reached, s, or None; nothing of a single one."""
        return self.reached[pair[0]][pair[1]] if self.reached else {}

    def seconds(self, pair: Pair) -> float | None:
        """Return the clock when the hardest target was reached, s; None if it was not."""
        if self.reached:
            return list(self.targets(pair).values())[-1]
        return self.end(pair) if self.ended == "target" else None

    def end(self, pair: Pair) -> float:
        """Return the clock at the end, s."""
        network, rule = pair
        return self.clocks[network][rule][-1]

    def curve(self, pair: Pair, metric: str) -> Curve:
        """Return (clock, measured) at every evaluation."""
        return _curve(self.clocks[pair[0]][pair[1]], self.evaluations, metric)


def train(suite: Suite, spec: Spec, folder: Path, beaten: Beaten) -> Trained:
    """Train, or read what was trained before.

    Args:
        suite: the suite.
        spec: which training.
        folder: where the files of finished trainings are.
        beaten: whether to stop.

    Raises:
        InputError: the easiest target holds before training.
    """
    experiment = spec.experiment(suite)
    path = folder / f"{_key(spec, suite, experiment)}.json"
    if path.exists():
        return Trained(**json.loads(path.read_text("utf-8")))
    trained = _train(suite, spec, experiment, beaten)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({n: getattr(trained, n) for n in Trained.__dataclass_fields__}))
    return trained


def _key(spec: Spec, suite: Suite, experiment: Experiment) -> str:
    """A name for a training that changes with all that decides its result."""
    networks = [suite.networks[name] for name in spec.networks]
    settings = experiment.model_dump(exclude={"checks"})  # no check applies in one process
    decides: list[Any] = [settings, networks, spec.tuning, suite.budget.model_dump()]
    if targets := suite.tasks[spec.task].targets:  # the experiment knows of a single one
        decides.append(targets)
    if seconds := suite.setting(spec.task, spec.networks[0]).seconds:
        decides.append(seconds)
    if suite.tasks[spec.task].relative:
        decides.append("relative")
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
    words = [spec.task, spec.method, spec.networks[0], f"s{spec.seed}", digest]
    return "-".join(word.replace(" ", "_").replace("/", "_") for word in words)


def _curve(clock: Sequence[float], evaluations: Evaluations, metric: str) -> Curve:
    return [(clock[done - 1], measured(values, metric)) for done, values in evaluations]


def _train(suite: Suite, spec: Spec, experiment: Experiment, beaten: Beaten) -> Trained:
    began = time.process_time()
    prepared = prepare(experiment)
    rules, waiting = suite.rules_of(spec.method), waits(experiment)
    networks = _networks(suite, spec, prepared)
    _check_plans(suite, spec, experiment, networks)
    task = suite.tasks[spec.task]
    target = task.hardest
    goals = [Target.parse(each) for each in task.targets or ()]
    none: Goals = {str(goal): None for goal in goals}
    reached = {name: dict.fromkeys(rules, none) for name in spec.networks} if goals else {}
    now = {pair: 0.0 for pair in networks}
    clocks: dict[str, dict[str, list[float]]] = {
        name: {rule: [] for rule in rules} for name in spec.networks
    }
    predicted = dict.fromkeys(spec.networks, 0.0)
    mean_seconds: dict[str, float] = {}
    in_force: Plan | None = None
    gain: Mapping[str, float] | None = None
    over_limit: float | None = None
    evaluations: list[tuple[int, Mapping[str, float]]] = []
    seconds = suite.setting(spec.task, spec.networks[0]).seconds or np.inf
    work = prepared.site.work
    first = work.evaluate(work.initial_adapter)
    unit = first["loss"] if task.relative else 1.0
    easiest = goals[0] if goals else target
    easiest.refuse_held({**first, "loss": first["loss"] / unit}, f"{spec.task}: target")
    updates = bits = 0
    ended = "budget"
    for record, plan in play(prepared, experiment.methods[0]):
        if gain is None:
            gain, over_limit = dict(plan.gain), _over_limit(plan)
        for pair, network in networks.items():
            now[pair] = (
                now[pair] + round_seconds(record, network, spec.seed, now[pair])
                if waiting
                else record.clock_seconds  # who starts depends on who has arrived
            )
            clocks[pair[0]][pair[1]].append(now[pair])
        if plan is not in_force:
            in_force = plan
            for name in spec.networks:
                mean_seconds[name] = _predicted(plan, networks[name, rules[0]]) if waiting else 0.0
        for name in spec.networks:
            predicted[name] += mean_seconds[name]
        updates += len(record.participants)
        bits += record.upload_bits
        if record.evaluation is not None:
            seen = {**record.evaluation, "loss": record.evaluation["loss"] / unit}
            evaluations.append((record.round + 1, seen))
            if goals:
                for name, rule in networks:
                    curve = _curve(clocks[name][rule], evaluations, target.metric)
                    reached[name][rule] = {str(goal): seconds_to(curve, goal) for goal in goals}
                # The values are the same on every network: all have crossed, or none.
                arrived = reached[name][rule][str(target)] is not None
            else:
                arrived = target.reached(seen)
            if arrived:
                ended = "target"
                break
        least = _least(clocks, evaluations, reached) if goals else {p: [t] for p, t in now.items()}
        if beaten(least):
            ended = "beaten"
            break
        if updates >= suite.budget.client_updates or min(now.values()) >= seconds:
            break
    return Trained(
        ended, clocks, predicted, gain or {}, evaluations, updates, bits,
        time.process_time() - began, over_limit, reached,
    )  # fmt: skip


def _least(
    clocks: Clocks, evaluations: Evaluations, reached: Mapping[str, Mapping[str, Goals]]
) -> dict[Pair, list[float]]:
    """The least clock at which each target can be reached.

    A crossing may lie just behind the last evaluation, however long ago that was.
    """
    done = evaluations[-1][0] if evaluations else 0
    return {
        (name, rule): [seen if t is None else t for t in goals.values()]
        for name, rules in reached.items()
        for rule, goals in rules.items()
        for seen in [clocks[name][rule][done - 1] if done else 0.0]
    }


def _over_limit(plan: Plan) -> float | None:
    ratio = plan.objective_seconds / plan.limit_seconds
    return float(ratio) if np.isfinite(ratio) else None


def _networks(suite: Suite, spec: Spec, prepared: Prepared) -> dict[Pair, Network]:
    """The networks to charge, under each of the method's rules."""
    experiment, work = prepared.experiment, prepared.site.work
    setup = prepared.setups[experiment.methods[0]]
    made, rules = {}, suite.rules_of(spec.method)
    for name in spec.networks:
        # Put together anew: over the section of another network, its keys would stay.
        section = replace(spec, networks=(name,)).experiment(suite).network
        described = experiment.model_copy(update={"network": section})
        network = network_of(described, work, setup)
        made |= {
            (name, rule): replace(network, system=replace(network.system, allocation=rule))
            for rule in rules
        }
    return made


def _check_plans(
    suite: Suite, spec: Spec, experiment: Experiment, networks: Mapping[Pair, Network]
) -> None:
    """Refuse to charge a training on a network for which the method has another plan."""
    if len(spec.networks) == 1:
        return
    rule = suite.rules_of(spec.method)[0]
    made = [make_plan(experiment, networks[name, rule], experiment.methods[0])
            for name in spec.networks]  # fmt: skip
    for name, other in zip(spec.networks, made, strict=True):
        if not (
            np.array_equal(made[0].sketch_rank, other.sketch_rank)
            and np.allclose(made[0].sampling_probability, other.sampling_probability)
        ):
            raise AssertionError(f"{spec.method} plans for {name} otherwise than it was trained")


def _predicted(plan: Plan, network: Network) -> float:
    return round_time(plan, planning_clients(network), network.system).mean
