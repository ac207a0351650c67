"""Two methods on the same seeds: ratios of their times, geometric means, bootstrap intervals.

A seed is a pair: same initial adapter, partition, devices and links. A run that missed a target
counts with the time at which its budget ended, so that the ratio is a bound; a target that both
missed says nothing and is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import norm as normal
from scipy.stats import t as student_t

from fedpace.bench.comparison import Setting
from fedpace.bench.results import Line
from fedpace.core.profile import Floats
from fedpace.core.rng import rng_for

_DRAWS = 4000
"""Bootstrap samples."""
_CONFIDENCE = 0.9
"""Share of the samples that an interval holds."""

_FEWEST = 5
"""With fewer pairs not even their whole range holds the median in 90 % of the cases
(1 - 2^(1 - n)), so no lead is called."""
_POWER = 0.8

Quantity = Literal["seconds", "rounds"]
"""What is compared: the clock, or the number of server steps."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """One method over another in one setting."""

    log_ratio: Floats
    """ln(theirs / ours) of each seed, the mean over the targets, shape (pairs,)."""
    at_least: bool
    """Some ratio is a lower bound: the other missed a target there."""
    at_most: bool
    """Some ratio is an upper bound: ours missed one there."""
    seeds: tuple[int, ...] = ()
    """One of each pair; settings of the same seeds are drawn anew together."""
    reached: "Pairs | None" = None
    """The same without targets that one of both missed; None where nothing is left, or none was
    missed."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A geometric mean of ratios, with its 90 % bootstrap interval."""

    mean: float
    low: float
    high: float
    at_least: bool
    at_most: bool
    pairs: int
    """Different seeds."""
    high_of_reached: float = np.inf
    """The upper end over the targets that both reached, where some was missed and there are enough
    pairs."""

    @property
    def leads(self) -> bool:
        """Whether ours is faster beyond the spread of the seeds."""
        return self.pairs >= _FEWEST and self.low > 1 and not self.at_most

    @property
    def trails(self) -> bool:
        """Whether ours is slower beyond the spread of the seeds.

        Where the other missed a target the ratio is a lower bound: then also without such targets.
        """
        return (
            self.pairs >= _FEWEST
            and self.high < 1
            and (not self.at_least or self.high_of_reached < 1)
        )

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
    ours: Mapping[int, Line],
    theirs: Mapping[int, Line],
    quantity: Quantity = "seconds",
    *,
    bounds: bool = True,
    target: int | None = None,
) -> Pairs | None:
    """Return the paired ratios of two methods; None where no seed says anything.

    A seed's figure is the mean over the targets, each of which at least one of both reached.

    Args:
        ours: runs by seed.
        theirs: runs by seed.
        quantity: what is compared.
        bounds: whether a target counts that one of both missed.
        target: the index of the only target that is looked at; None: all.
    """
    wanted = slice(None) if target is None else slice(target, target + 1)
    figures: dict[int, float] = {}
    missed: list[tuple[bool, bool]] = []
    for seed in sorted(ours.keys() & theirs.keys()):
        amounts = (_amounts(runs[seed], quantity)[wanted] for runs in (ours, theirs))
        both = zip(*amounts, strict=True)
        enough = any if bounds else all
        known = [(a, b) for a, b in both if enough((a.reached, b.reached))]
        if known:
            figures[seed] = float(np.mean([np.log(b.amount / a.amount) for a, b in known]))
            missed += [(not a.reached, not b.reached) for a, b in known]
    if not figures:
        return None
    some_missed = any(any(each) for each in missed)
    return Pairs(
        np.array(list(figures.values())),
        at_least=any(theirs_missed for _, theirs_missed in missed),
        at_most=any(ours_missed for ours_missed, _ in missed),
        seeds=tuple(figures),
        reached=pairs(ours, theirs, quantity, bounds=False, target=target) if some_missed else None,
    )


def geometric_mean(settings: Sequence[Pairs]) -> Ratio:
    """Return the geometric mean over settings of the geometric mean over seeds.

    The interval is the bootstrap's: seeds drawn anew, settings as they are. A seed means the same
    partition and devices in every setting, so settings that have the same seeds are drawn together;
    as if each had luck of its own the interval would be too narrow. With few pairs the percentiles
    of the bootstrap are too narrow as well, and are taken further out: Hesterberg, "What teachers
    should know about the bootstrap", The American Statistician 2015, the expanded interval.

    Args:
        settings: at least one.

    Example:
        >>> both = Pairs(np.log([2.0, 8.0]), at_least=False, at_most=False)
        >>> str(geometric_mean([both]))
        '4.00 (2.00–8.00)'
    """
    mean, low, high, count = _interval(settings)
    at_least = any(each.at_least for each in settings)
    high_of_reached = np.inf
    if at_least:
        whole = [each.reached if each.at_least or each.at_most else each for each in settings]
        if certain := [each for each in whole if each is not None]:
            _, _, upper, left = _interval(certain)
            high_of_reached = upper if left >= _FEWEST else np.inf
    at_most = any(each.at_most for each in settings)
    return Ratio(mean, low, high, at_least, at_most, count, high_of_reached)


def _interval(settings: Sequence[Pairs]) -> tuple[float, float, float, int]:
    """The mean, the ends of its interval, and of how many seeds; see `geometric_mean`."""
    rng = rng_for(0, "simulation", _DRAWS)
    drawn, choices = np.zeros(_DRAWS), dict[tuple[int, ...], Any]()
    for each in settings:
        count = len(each.log_ratio)
        which = each.seeds or tuple(range(count))
        if which not in choices:
            choices[which] = rng.integers(count, size=(_DRAWS, count))
        drawn += each.log_ratio[choices[which]].mean(axis=1)
    drawn /= len(settings)
    count = len({seed for which in choices for seed in which})
    tail = tail_of(count)
    low, high = np.exp(np.quantile(drawn, [tail, 1 - tail]))
    mean = np.exp(np.mean([each.log_ratio.mean() for each in settings]))
    return float(mean), float(low), float(high), count


def tail_of(count: int) -> float:
    """Return which share of the samples of a bootstrap lies on each side of its 90 % interval.

    That is Phi(-sqrt(n / (n - 1)) t), with t the 95 % quantile of Student's law for n - 1.

    Args:
        count: of what is drawn anew.

    Example:
        >>> round(tail_of(8), 4), round(tail_of(1000), 3)
        (0.0214, 0.05)
    """
    if count < 2:
        return 0.0
    upper = student_t.ppf((1 + _CONFIDENCE) / 2, count - 1)
    return float(normal.cdf(-np.sqrt(count / (count - 1)) * upper))


def power(settings: Sequence[Pairs]) -> float | None:
    r"""Return the least ratio that the pairs can tell from 1; None with fewer than two seeds.

    Least: at which four of five repetitions of the measurement would have an interval without 1,

    .. math:: \exp((t_{0.95} + t_{0.8}) s / \sqrt{n}),

    with s the standard deviation over the n seeds of the mean over settings of ln(theirs / ours),
    t the quantiles of Student's law for n - 1. Where a setting lacks some seeds, s / sqrt(n) is the
    root of n / (n - 1) times the sum over the seeds of the square of what each adds to the mean,
    which is the same where none is lacking.

    Args:
        settings: at least one.

    Example:
        >>> round(power([Pairs(np.log([1.0, 2.0, 4.0]), at_least=False, at_most=False)]), 2)
        4.92
    """
    adds: dict[int, float] = {}
    for each in settings:
        count = len(each.log_ratio)
        shares = (each.log_ratio - each.log_ratio.mean()) / (count * len(settings))
        for seed, share in zip(each.seeds or range(count), shares, strict=True):
            adds[seed] = adds.get(seed, 0.0) + float(share)
    count = len(adds)
    if count < 2:
        return None
    error = np.sqrt(count / (count - 1) * np.sum(np.square(list(adds.values()))))
    return float(np.exp(student_t.ppf([(1 + _CONFIDENCE) / 2, _POWER], count - 1).sum() * error))


def best_of(
    ours: Mapping[int, Line], others: Mapping[str, Mapping[int, Line]], quantity: Quantity
) -> str | None:
    """Return which other method has the least geometric mean; of equals the first.

    Those that reached the target less often come after the rest, whatever their times.
    """
    found = {name: pairs(ours, runs, quantity) for name, runs in others.items()}
    known = {name: each for name, each in found.items() if each is not None}

    def order(name: str) -> tuple[int, float]:
        missed = sum(not a.reached for ln in others[name].values() for a in _amounts(ln, quantity))
        return missed, float(known[name].log_ratio.mean())

    return min(known, key=order, default=None)


def chosen_by_plan(
    ours: Mapping[int, Line], other: Mapping[int, Line], name: str, enough: float
) -> dict[int, Line]:
    """Return the runs of a planner that takes ours where it promises enough, else the other."""
    return {
        seed: ours[seed]
        if ours[seed]["predicted_gain"].get(name, np.inf) >= enough
        else other[seed]
        for seed in ours.keys() & other.keys()
    }


def _reached(line: Line) -> bool:
    return line["seconds"] is not None


@dataclass(frozen=True, slots=True)
class _Amount:
    """What a run took to a target, or to its end where it missed that."""

    amount: float
    reached: bool


def _amounts(line: Line, quantity: Quantity) -> list[_Amount]:
    """One for each target."""
    if quantity == "rounds":
        return [_Amount(float(line["rounds"]), _reached(line))]
    end = float(line["end_seconds"])
    if "targets" not in line:
        return [_Amount(end, _reached(line))]
    return [_Amount(end if t is None else t, t is not None) for t in line["targets"].values()]
