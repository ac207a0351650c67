"""Find a method's learning rate and cohort size on held-out training data, one seed.

First the rates at the middle size, then sizes at the best rates, from the middle outwards as long
as one is the best so far. A candidate is given up once it can be first for no network and no rule
any more; that changes no winner.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpace.bench.suite import Keys, Suite
from fedpace.bench.training import Pair, Spec, Trained, train

Candidate = tuple[Keys, Keys]
"""A rate and a size."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a method is compared with, on one network under one rule."""

    rate: Keys
    size: Keys
    seconds: float | None
    """When it reached the target in tuning, s; None if no candidate did. Of several seeds and
    targets the geometric mean."""
    cost: Mapping[str, Any] | None = None
    """What an equal search took: see `bench.equal_search`."""


def tune(
    suite: Suite, task: str, method: str, networks: tuple[str, ...], folder: Path
) -> dict[Pair, Choice]:
    """Choose rate and size for each network and rule.

    Where no candidate reaches the target, the one that came nearest is chosen. Where there is one
    candidate alone, nothing is trained.

    Args:
        suite: the suite.
        task: its name.
        method: its name.
        networks: on which one training serves all.
        folder: of the finished trainings.
    """
    pairs = [(network, rule) for network in networks for rule in suite.rules_of(method)]
    tried: dict[Candidate, Trained] = {}
    best: dict[Pair, float] = {}

    def beaten(least: Mapping[Pair, Sequence[float]]) -> bool:
        return all(pair in best and least[pair][-1] >= best[pair] for pair in pairs)

    def attempt(rate: Keys, size: Keys) -> None:
        if (rate, size) in tried:
            return
        spec = Spec(task, method, networks, rate, size, suite.tuning_seed, tuning=True)
        trained = tried[rate, size] = train(suite, spec, folder, beaten)
        for pair in pairs:
            seconds = trained.seconds(pair)
            if seconds is not None:
                best[pair] = min(seconds, best.get(pair, seconds))

    rates, sizes = suite.grid(method)
    middle = len(sizes) // 2
    if len(rates) == len(sizes) == 1:
        return dict.fromkeys(pairs, Choice(rates[0], sizes[0], None))
    for rate in rates:
        attempt(rate, sizes[middle])
    metric = suite.tasks[task].hardest.metric
    rates = list(dict.fromkeys(_first(tried, pair, metric)[0] for pair in pairs))
    for direction in (-1, 1):
        at = middle + direction
        while 0 <= at < len(sizes):
            for rate in rates:
                attempt(rate, sizes[at])
            if not any(_first(tried, pair, metric)[1] == sizes[at] for pair in pairs):
                break
            at += direction
    chosen = {}
    for pair in pairs:
        rate, size = _first(tried, pair, metric)
        chosen[pair] = Choice(rate, size, tried[rate, size].seconds(pair))
    return chosen


def _first(tried: Mapping[Candidate, Trained], pair: Pair, metric: str) -> Candidate:
    """The candidate that reached the target first, or came nearest to it."""
    sign = -1.0 if metric == "accuracy" else 1.0

    def order(key: Candidate) -> tuple[bool, float]:
        seconds = tried[key].seconds(pair)
        if seconds is not None:
            return False, seconds
        values = [sign * values[metric] for _, values in tried[key].evaluations]
        return True, min((v for v in values if v == v), default=float("inf"))

    return min(tried, key=order)
