"""The suite file: which methods are compared on which work, and how each is tuned."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedpace.core.errors import InputError
from fedpace.core.profile import AllocationRule
from fedpace.core.target import Target
from fedpace.experiment.config import Experiment
from fedpace.experiment.methods import method_named
from fedpace.experiment.parsing import parse
from fedpace.experiment.toml_files import read_toml

Table = dict[str, Any]
Keys = tuple[tuple[str, Any], ...]
"""Keys of a section, with their values."""

PLANNED = "planned"
"""In the place of a cohort's size: the best one under our law and objective, for that planner."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Task(_Section):
    """One training problem: data, partition, model, and what counts as done."""

    target: str | None = None
    """"accuracy>=0.75" or "loss<=1.2", on the held-out data; the first evaluation that shows it.
    One that the model has before training is refused, also of several."""
    targets: Annotated[list[str], Field(min_length=2, max_length=3)] | None = None
    """In place of `target`: two or three of one metric, the easiest first, read off the smoothed
    curve (`bench.crossing`); a training ends at the hardest."""
    relative: Literal[True] | None = None
    """Losses count as shares of the loss before training, and so do `targets`: "loss<=0.95". Where
    few examples are held out their first loss differs between seeds by more than training gains."""
    experiment: Table
    """Sections of an experiment file, over the suite's."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Task":
        if (self.target is None) == (self.targets is None):
            raise ValueError("a task gives either target or targets")
        goals = [Target.parse(each) for each in self.targets or [str(self.target)]]
        values = [goal.value if goal.metric == "accuracy" else -goal.value for goal in goals]
        if len({goal.metric for goal in goals}) > 1 or values != sorted(set(values)):
            raise ValueError(f"targets are of one metric, the easiest first, not {self.targets}")
        if self.relative and not all(g.metric == "loss" and g.value < 1 for g in goals):
            raise ValueError(
                "relative needs targets that are shares of the first loss, such as "
                f"['loss<=0.97', 'loss<=0.95'], not {self.targets or self.target}"
            )
        return self

    @property
    def hardest(self) -> Target:
        """The target at which a training ends."""
        return Target.parse(self.targets[-1] if self.targets else str(self.target))


class Method(_Section):
    """One method: what `fedpace run --method` calls it, and how it is tuned."""

    method: str | None = None
    """Its name for `fedpace run`; by default that of the section."""
    kind: Literal["ours", "published", "sampler", "ablation"]
    """"published": a method as its paper has it. "sampler": a way to choose participants, with our
    aggregation and server step. "ours": the first of a suite is what all are compared with, further
    ones stand beside it where half of the settings or more have them. "ablation": ours with
    something changed."""
    rates: str
    """Which grid of learning rates it is tuned over."""
    sizes: str | None = None
    """Which grid of cohort sizes, if any."""
    about: str = ""
    """What it is, in a sentence; for the page."""
    settings: list[str] | None = None
    """Only in these, each "task, network"."""
    experiment: Table = Field(default_factory=dict)
    """Sections of an experiment file, over the rest."""

    @property
    def biased(self) -> bool:
        """Whether its plans may have a bias."""
        return bool(self.experiment.get("planner", {}).get("max_bias"))

    @property
    def rules(self) -> tuple[AllocationRule, ...]:
        """How the band is divided: ours lets all finish together, the others get both rules."""
        if self.kind in ("ours", "ablation"):
            return ("equal-finish",)
        return ("equal-finish", "equal-share")


class Budget(_Section):
    """When a training ends that has not reached its target."""

    client_updates: Annotated[int, Field(ge=1)]
    """Local trainings of single clients, in all rounds together."""
    rounds: Annotated[int, Field(ge=1)]
    """Rounds."""


class Setting(_Section):
    """One row of the comparison."""

    task: str
    network: str
    experiment: Table = Field(default_factory=dict)
    """Sections of an experiment file, over the task's and the network's, under the method's."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """On the clock: a training ends with the first round or step that ends later."""

    @property
    def more(self) -> Table:
        """What it says besides the names; empty where that is nothing."""
        return self.model_dump(exclude={"task", "network"}, exclude_defaults=True)

    def __str__(self) -> str:
        return f"{self.task}, {self.network}"


class Suite(_Section):
    """A suite file."""

    about: str = ""
    """What it is for."""
    quantity: Literal["seconds", "rounds"] = "seconds"
    """What its page compares: the clock, or the number of server steps."""
    seeds: Annotated[list[int], Field(min_length=1)]
    """The compared runs."""
    tuning_seed: int = 100
    """Seed of the runs that choose rates and sizes, on held-out training data."""
    tuning_seeds: Annotated[list[int], Field(min_length=1)] | None = None
    """In place of `tuning_seed`: every candidate is trained on each."""
    tuning_runs: Annotated[int, Field(ge=1)] | None = None
    """How many pairs of a rate and a size every method tries (`bench.equal_search`)."""
    budget: Budget
    allocation: AllocationRule | None = None
    """How the band is divided in every run; without it, as `Method.rules` has it."""
    experiment: Table
    """Sections of an experiment file that all runs share."""
    tasks: dict[str, Task]
    networks: dict[str, Table]
    """Sections [network] by name."""
    settings: Annotated[list[Setting], Field(min_length=1)]
    rates: dict[str, list[Table]]
    """Grids of [training] keys; the first is tried first."""
    sizes: dict[str, Annotated[list[Table], Field(min_length=1)]] = Field(default_factory=dict)
    """Grids of [planner] keys, such as cohort, in order; the rates are tried at the middle one.
    `cohort = "planned"`: the one that our own objective proposes for that method."""
    methods: dict[str, Method]

    @model_validator(mode="after")
    def _names_exist(self) -> "Suite":
        for setting in self.settings:
            _known("task", setting.task, self.tasks)
            _known("network", setting.network, self.networks)
        settings = {str(setting): setting for setting in self.settings}
        for method in self.methods.values():
            _known("rates", method.rates, self.rates)
            for where in method.settings or ():
                _known("setting", where, settings)
            if method.sizes is not None:
                _known("sizes", method.sizes, self.sizes)
        for seed in self.tuning_seeds or [self.tuning_seed]:
            if seed in self.seeds:
                raise ValueError(f"tuning_seed {seed} is among the compared seeds")
        self._tuned_equally()
        return self

    def _tuned_equally(self) -> None:
        runs = self.tuning_runs
        if (runs is None) != (self.tuning_seeds is None):
            raise ValueError("tuning_seeds and tuning_runs go together; give both or neither")
        if runs is None:
            return
        if "tuning_seed" in self.model_fields_set:
            raise ValueError("tuning_seeds stands in the place of tuning_seed; leave that out")
        if self.allocation is None:
            raise ValueError("tuning_runs needs allocation: one rule for the band, for every run")
        for name in self.methods:
            rates, sizes = self.grid(name)
            if len(set(rates)) * len(set(sizes)) < runs:
                raise ValueError(
                    f"method {name!r} has {len(set(rates))} rates and {len(set(sizes))} sizes, "
                    f"fewer pairs than tuning_runs = {runs}; lengthen its grids or lower that"
                )

    def grid(self, method: str) -> tuple[list[Keys], list[Keys]]:
        """Return the rates and the sizes that a method is tuned over, in order."""
        entry = self.methods[method]
        sizes = self.sizes[entry.sizes] if entry.sizes else [{}]
        return [keys_of(table) for table in self.rates[entry.rates]], [keys_of(t) for t in sizes]

    def untuned(self) -> "Suite":
        """Return the suite with one candidate for each method: its first rate, its middle size."""
        return self.model_copy(
            update={
                "rates": {name: grid[:1] for name, grid in self.rates.items()},
                "sizes": {n: [grid[len(grid) // 2]] for n, grid in self.sizes.items()},
                "tuning_seeds": None,
                "tuning_runs": None,
            }
        )

    def setting(self, task: str, network: str) -> Setting:
        """Return the setting of that task and network; one without more where there is none."""
        found = (s for s in self.settings if (s.task, s.network) == (task, network))
        return next(found, Setting(task=task, network=network))

    def methods_in(self, setting: Setting) -> list[str]:
        """Return the methods that are compared in a setting."""
        where = str(setting)
        return [name for name, m in self.methods.items() if where in (m.settings or (where,))]

    def rules_of(self, method: str) -> tuple[AllocationRule, ...]:
        """Return the rules by which a method's rounds are charged."""
        return self.methods[method].rules if self.allocation is None else (self.allocation,)

    def digest(self, task: str, network: str, method: str) -> str:
        """Return a short name of all that decides a method's results in a setting, but the seed."""
        entry = self.methods[method]
        decides = [
            self.experiment, self.budget.model_dump(), self.tuning_seed,
            self.tasks[task].model_dump(exclude_none=True), self.networks[network],
            entry.model_dump(exclude={"settings", "about"}),
            self.rates[entry.rates], self.sizes.get(entry.sizes or ""),
        ]  # fmt: skip
        if self.allocation is not None:
            decides.append(self.allocation)
        if self.tuning_runs is not None:
            decides.append([self.tuning_seeds, self.tuning_runs])
        if more := self.setting(task, network).more:
            decides.append(more)
        text = json.dumps(decides, sort_keys=True)
        # Where the data lies on this machine decides nothing.
        text = re.sub(r'"(?:/[^"]*/|data:|model:)([^"/]+)"', r'"\1"', text)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def waits(experiment: Experiment) -> bool:
    """Say whether a training's rounds wait for all: only those can be charged another way.

    Args:
        experiment: of one method.
    """
    (method,) = experiment.methods
    synchronous = experiment.training.schedule == "synchronous"
    return synchronous and method_named(method).asynchronous is None


def keys_of(table: Mapping[str, Any]) -> Keys:
    """Return a table of keys as something that can be compared and kept in a set."""
    return tuple(sorted(table.items()))


def _known(what: str, name: str, table: Mapping[str, Any]) -> None:
    if name not in table:
        raise ValueError(f"{what} {name!r} is not defined; defined are {', '.join(table)}")


def load_suite(path: Path, data_folder: Path | None) -> Suite:
    """Read a suite file.

    Args:
        path: a TOML file.
        data_folder: where the data sets are that a task names; a task whose data is no folder
            there keeps the name as it is ("stdlib-docs", a hub id).

    Raises:
        InputError: what is wrong, where.
    """
    suite = parse(Suite, read_toml(path), str(path))
    for name, task in suite.tasks.items():
        for section in ("data", "model"):
            _find(task.experiment.get(section, {}), section, data_folder, f"{path}: task {name}")
    return suite


def _find(section: Table, kind: str, data_folder: Path | None, where: str) -> None:
    """Put the full path in the place of "data:NAME", which stands for a folder of that name."""
    value = section.get("name", "")
    marker = f"{kind}:"
    if not value.startswith(marker):
        return
    if data_folder is None:
        raise InputError(f"{where} needs {value!r}; say with --data where its folder is")
    folder = {"data": data_folder, "model": data_folder.parent / "models"}[kind]
    folder = folder / value.removeprefix(marker)
    if not folder.is_dir():
        raise InputError(f"{where} needs {folder}, which is no folder; see --data")
    section["name"] = str(folder.resolve())


def experiment_of(
    suite: Suite,
    task: str,
    network: str,
    method: str,
    *,
    rate: Mapping[str, Any],
    size: Mapping[str, Any],
    seed: int,
    tuning: bool,
) -> Experiment:
    """Put together the experiment of one training.

    Args:
        suite: the suite.
        task: its name.
        network: its name.
        method: its name.
        rate: keys of [training].
        size: keys of [planner]; cohort = "planned" leaves the cohort to our objective.
        seed: of the run.
        tuning: hold a tenth of the training data out, and leave the test data alone.
    """
    entry = suite.methods[method]
    table: Table = {"seed": seed, "methods": [entry.method or method]}
    # Of several targets the curve says when they are reached; the run itself knows of none.
    ending: Table = {"rounds": suite.budget.rounds}
    if suite.tasks[task].target is not None:
        ending |= {"target": suite.tasks[task].target}
    layers: list[Table] = [
        {"training": {"schedule": "synchronous"}},  # what is compared is said, not planned
        suite.experiment,
        suite.tasks[task].experiment,
        {"network": suite.networks[network]},
        suite.setting(task, network).experiment,
        entry.experiment,
        {"training": {**rate, **ending}, "planner": dict(size)},
        # Planned for the rule by which it is charged first, whatever the default is.
        {"network": {"allocation": suite.rules_of(method)[0]}},
    ]
    if tuning:
        layers.append({"data": {"eval": "holdout"}})
    for layer in layers:
        for section, keys in layer.items():
            table.setdefault(section, {})
            table[section] = {**table[section], **keys}
    if table["planner"].get("cohort") == PLANNED:
        del table["planner"]["cohort"]
    return parse(Experiment, table, f"{task}, {network}, {method}")
