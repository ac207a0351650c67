"""What the lines of a results file say: speed-ups over every method, by setting.

The time of a method in a setting is the median over the seeds, where a run that never reached the
target counts as later than any that did. If that median is such a run, only a bound is known: the
method needs more than the clock at its end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedpace.bench.results import Line
from fedpace.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds to the target over the seeds of one method, setting and rule."""

    seconds: float
    """Median; where `reached` is False the least it can be."""
    reached: bool
    """Whether the median run reached the target."""
    low: float
    """The fastest seed, s; inf if none reached the target."""
    high: float
    """The slowest, s; inf if one did not reach it."""
    runs: int
    runs_reached: int


@dataclass(frozen=True, slots=True)
class Speedup:
    """How much later a method was than ours."""

    ratio: float
    exact: bool
    """False: the ratio is at least this, as the other never reached the target."""


Setting = tuple[str, str]
"""Task and network."""


def settings_of(lines: Iterable[Line]) -> list[Setting]:
    """Return the settings in the order of the lines."""
    return list(dict.fromkeys((line["task"], line["network"]) for line in lines))


def time_of(lines: Iterable[Line], setting: Setting, method: str, rule: str) -> Time | None:
    """Return a method's time in a setting; None if it was not run there."""
    own = [
        line
        for line in lines
        if (line["task"], line["network"], line["method"], line["rule"]) == (*setting, method, rule)
    ]
    if not own:
        return None
    # A run that did not get there sorts behind those that did, by how long it was tried.
    keys = sorted((ln["seconds"] is None, ln["seconds"] or ln["end_seconds"]) for ln in own)
    # The upper median: with an even number of seeds the more cautious one.
    late, median = keys[len(keys) // 2]
    reached = [seconds for missed, seconds in keys if not missed]
    return Time(
        seconds=median,
        reached=not late,
        low=min(reached, default=np.inf),
        high=max(reached) if len(reached) == len(own) else np.inf,
        runs=len(own),
        runs_reached=len(reached),
    )


def speedup(ours: Time | None, theirs: Time | None) -> Speedup | None:
    """Return their time over ours; None where ours did not get there, or one was not run."""
    if ours is None or theirs is None or not ours.reached:
        return None
    return Speedup(theirs.seconds / ours.seconds, theirs.reached)


def rivals(lines: Sequence[Line], kinds: Sequence[str]) -> list[str]:
    """Return the methods of some kinds, in the order of the lines."""
    return list(dict.fromkeys(line["method"] for line in lines if line["kind"] in kinds))


def our_methods(lines: Sequence[Line]) -> list[str]:
    """Return the methods of kind "ours", the one that others are compared with first.

    Raises:
        InputError: there is none.
    """
    ours = rivals(lines, ["ours"])
    if not ours:
        raise InputError("the results name no method of kind 'ours'; one is needed")
    return ours


def table(
    lines: Sequence[Line], ours: str, methods: Sequence[str], rule: str
) -> dict[Setting, dict[str, Speedup | None]]:
    """Return the speed-up of ours over each method in each setting.

    Args:
        lines: of a results file, one suite.
        ours: our method; its band is divided by equal finish.
        methods: the others.
        rule: how theirs is divided.
    """
    return {
        setting: {
            method: speedup(
                time_of(lines, setting, ours, "equal-finish"),
                time_of(lines, setting, method, rule),
            )
            for method in methods
        }
        for setting in settings_of(lines)
    }


def prediction_errors(lines: Iterable[Line]) -> list[float]:
    """Return |measured / predicted - 1| of the clock at the end of each run, equal finish."""
    return [
        abs(line["end_seconds"] / line["predicted_seconds"] - 1)
        for line in lines
        if line["predicted_seconds"]
    ]
