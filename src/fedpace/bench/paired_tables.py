"""Which runs stand against which: ours, the schedule "auto", every rival and the best of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedpace.bench.comparison import Setting, our_methods, rivals, settings_of
from fedpace.bench.paired import (
    Pairs,
    Quantity,
    Ratio,
    best_of,
    chosen_by_plan,
    geometric_mean,
    pairs,
    power,
    runs_of,
)
from fedpace.bench.results import Line
from fedpace.bench.suite import Suite
from fedpace.planning.overlap.choice import OVERLAPPING_GAIN, enough_gain

WAITING = "synchronous"
"""The name, among the gains of a plan and among the methods, of rounds that wait for all."""
AUTO = "auto"
"""The schedule that takes ours where the plan promises a gain over rounds that wait."""
BEST = "best rival"

Runs = Mapping[int, Line]
"""Seed -> line, of one method in one setting."""


@dataclass(frozen=True, slots=True)
class Results:
    """The runs of a suite under one rule for the band."""

    ours: str
    beside: Sequence[str]
    """Further methods of ours, beside the first: those run in half of the settings or more."""
    rivals: Sequence[str]
    """Methods of others, in the order of the lines."""
    ablations: Sequence[str]
    """Ours with something changed."""
    runs: Mapping[Setting, Mapping[str, Runs]]
    """Setting -> method -> runs; settings in which ours was run."""
    quantity: Quantity
    bounds: bool = True
    """Whether a target counts that one of two methods missed, with the end of its budget."""
    target: int | None = None
    """Index of the only target that is looked at; None: all."""
    enough_gain: float = OVERLAPPING_GAIN
    """Promised gain from which on "auto" takes ours."""
    biased: Sequence[str] = ()
    """Methods whose plans may have a bias."""

    @property
    def methods(self) -> list[str]:
        """Every method, ours first."""
        return [self.ours, *self.changed, *self.rivals]

    @property
    def changed(self) -> list[str]:
        """Ours with something changed, or left out."""
        return [*self.beside, *self.ablations]

    @property
    def shown(self) -> list[str]:
        """What stands against the rivals: ours, those beside it, and the schedule "auto"."""
        return [self.ours, *self.beside, *([AUTO] if self.has_auto else [])]

    @property
    def tasks(self) -> dict[str, list[Setting]]:
        """Task -> its settings."""
        made: dict[str, list[Setting]] = {}
        for setting in self.runs:
            made.setdefault(setting[0], []).append(setting)
        return made

    @property
    def has_auto(self) -> bool:
        """Whether both schedules were run somewhere, and "auto" does not take ours everywhere."""
        both = [setting for setting, here in self.runs.items() if here.get(WAITING)]
        return self.ours != WAITING and any(self.overlaps(setting) < 1 for setting in both)

    def of(self, who: str, setting: Setting) -> Runs:
        """Return a method's runs in a setting; those of "auto" are taken from both schedules."""
        here = self.runs[setting]
        if who == AUTO:
            return chosen_by_plan(here[self.ours], here.get(WAITING, {}), WAITING, self.enough_gain)
        return here.get(who, {})

    def over(self, who: str, other: str) -> dict[Setting, Pairs]:
        """Return the pairs of a method with another, by setting; settings without one are absent.

        Args:
            who: a method, or "auto".
            other: a method, or "best rival": the one whose geometric mean is the least there.
        """
        found = {}
        for setting in self.runs:
            against = self.best_rival(who, setting) if other == BEST else other
            if against is None:
                continue
            both = self.of(who, setting), self.of(against, setting)
            made = pairs(*both, self.quantity, bounds=self.bounds, target=self.target)
            if made is not None:
                found[setting] = made
        return found

    def best_rival(self, who: str, setting: Setting) -> str | None:
        """Return the best method of others in a setting; None if none was run."""
        others = {name: self.of(name, setting) for name in self.rivals}
        return best_of(self.of(who, setting), others, self.quantity)

    def overlaps(self, setting: Setting) -> float:
        """Return for which share of the seeds "auto" takes ours."""
        taken = self.of(AUTO, setting)
        own = self.of(self.ours, setting)
        return sum(line is own[seed] for seed, line in taken.items()) / max(len(taken), 1)


def results_of(lines: Sequence[Line], suite: Suite | None = None) -> Results:
    """Sort the lines of a suite.

    Args:
        lines: under one rule, in the order of the suite.
        suite: for what it compares, and whether its first method has a bias.

    Raises:
        InputError: there is no method of kind "ours".
    """
    ours, *beside = our_methods(lines)
    others, ablations = rivals(lines, ["published", "sampler"]), rivals(lines, ["ablation"])
    every = (ours, *beside, *ablations, *others)
    runs = {
        setting: {name: runs_of(lines, setting, name) for name in every}
        for setting in settings_of(lines)
    }
    runs = {setting: here for setting, here in runs.items() if here[ours]}
    # A column of one setting among many would read as if it were of all.
    rare = [n for n in beside if 2 * sum(bool(here[n]) for here in runs.values()) < len(runs)]
    beside, ablations = [n for n in beside if n not in rare], [*rare, *ablations]
    quantity: Quantity = "seconds" if suite is None else suite.quantity
    known = {} if suite is None else suite.methods
    biased = [name for name in every if name in known and known[name].biased]
    return Results(
        ours, beside, others, ablations, runs, quantity,
        enough_gain=enough_gain(biased=ours in biased), biased=biased,
    )  # fmt: skip


def overall(found: Mapping[Setting, Pairs]) -> Ratio | None:
    """Return the geometric mean over settings; None of none."""
    return geometric_mean(list(found.values())) if found else None


def by_setting(found: Mapping[Setting, Pairs]) -> dict[Setting, Ratio]:
    """Return the ratio in each setting."""
    return {setting: geometric_mean([each]) for setting, each in found.items()}


def told_from_one(found: Mapping[Setting, Pairs]) -> float | None:
    """Return the least ratio that the pairs of all settings can tell from 1."""
    return power(list(found.values())) if found else None


def cell(ratio: Ratio | None) -> str:
    """Return a ratio as the tables have it, leads bold, losses bold with an arrow."""
    if ratio is None:
        return "–"
    return f"**{ratio}**" if ratio.leads else f"**{ratio} \u2193**" if ratio.trails else str(ratio)
