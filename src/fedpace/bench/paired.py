"""Two methods on the same seeds: ratios of their times, geometric means, bootstrap intervals.

A seed is a pair: same initial adapter, partition, devices and links. A run that missed the target
counts with the time at which its budget ended, so that the ratio is a bound; a pair in which both
missed says nothing and is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedpace.bench.comparison import Setting
from fedpace.bench.results import Line
from fedpace.core.profile import Floats
from fedpace.core.rng import rng_for

_DRAWS = 4000
"""Bootstrap samples."""
_CONFIDENCE = 0.9
"""Share of the samples that an interval holds."""

Quantity = Literal["seconds", "rounds"]
"""What is compared: the clock, or the number of server steps."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """One method over another in one setting."""

    log_ratio: Floats
    """ln(theirs / ours) of each seed, shape (pairs,)."""
    at_least: bool
    """Some ratio is a lower bound: the other missed the target there."""
    at_most: bool
    """Some ratio is an upper bound: ours missed it there."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A geometric mean of ratios, with its 90 % bootstrap interval."""

    mean: float
    low: float
    high: float
    at_least: bool
    at_most: bool

    def __str__(self) -> str:
        bound = {(True, False): "> ", (False, True): "< ", (True, True): "~ "}
        sign = bound.get((self.at_least, self.at_most), "")
        return f"{sign}{self.mean:.2f} ({self.low:.2f}–{self.high:.2f})"


def runs_of(lines: Iterable[Line], setting: Setting, method: str) -> dict[int, Line]:
    """Return a method's runs in a setting by seed."""
    return {
        line["seed"]: line
        for line in lines
        if (line["task"], line["network"], line["method"]) == (*setting, method)
    }


def pairs(
    ours: Mapping[int, Line], theirs: Mapping[int, Line], quantity: Quantity = "seconds"
) -> Pairs | None:
    """Return the paired ratios of two methods; None where no seed says anything.

    Args:
        ours: runs by seed.
        theirs: runs by seed.
        quantity: what is compared.
    """
    known = [
        (ours[seed], theirs[seed])
        for seed in sorted(ours.keys() & theirs.keys())
        if _reached(ours[seed]) or _reached(theirs[seed])
    ]
    if not known:
        return None
    return Pairs(
        np.array([np.log(_amount(b, quantity) / _amount(a, quantity)) for a, b in known]),
        at_least=not all(_reached(b) for _, b in known),
        at_most=not all(_reached(a) for a, _ in known),
    )


def geometric_mean(settings: Sequence[Pairs]) -> Ratio:
    """Return the geometric mean over settings of the geometric mean over seeds.

    The interval is the bootstrap's: seeds drawn anew within each setting, settings as they are.

    Args:
        settings: at least one.

    Example:
        >>> both = Pairs(np.log([2.0, 8.0]), at_least=False, at_most=False)
        >>> str(geometric_mean([both]))
        '4.00 (2.00–8.00)'
    """
    rng = rng_for(0, "simulation", _DRAWS)
    drawn = np.zeros(_DRAWS)
    for each in settings:
        count = len(each.log_ratio)
        drawn += each.log_ratio[rng.integers(count, size=(_DRAWS, count))].mean(axis=1)
    drawn /= len(settings)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.exp(np.quantile(drawn, [tail, 1 - tail]))
    mean = np.exp(np.mean([each.log_ratio.mean() for each in settings]))
    return Ratio(
        float(mean), float(low), float(high),
        at_least=any(each.at_least for each in settings),
        at_most=any(each.at_most for each in settings),
    )  # fmt: skip


def best_of(
    ours: Mapping[int, Line], others: Mapping[str, Mapping[int, Line]], quantity: Quantity
) -> str | None:
    """Return which other method has the least geometric mean; of equals the first.

    Those that reached the target less often come after the rest, whatever their times.
    """
    found = {name: pairs(ours, runs, quantity) for name, runs in others.items()}
    known = {name: each for name, each in found.items() if each is not None}

    def order(name: str) -> tuple[int, float]:
        missed = sum(not _reached(line) for line in others[name].values())
        return missed, float(known[name].log_ratio.mean())

    return min(known, key=order, default=None)


def chosen_by_plan(
    ours: Mapping[int, Line], other: Mapping[int, Line], name: str
) -> dict[int, Line]:
    """Return the runs of a planner that takes ours where it promises a gain, else the other."""
    return {
        seed: ours[seed] if ours[seed]["predicted_gain"].get(name, np.inf) > 1 else other[seed]
        for seed in ours.keys() & other.keys()
    }


def _reached(line: Line) -> bool:
    return line["seconds"] is not None


def _amount(line: Line, quantity: Quantity) -> float:
    return float(line["end_seconds"] if quantity == "seconds" else line["rounds"])
