"""The choice of rates and sizes where every method has the same number of trials and seeds.

A candidate is a pair of a rate and a size; every method tries as many, and each is trained on every
tuning seed. First the rates at the middle size; then, at the best rate so far, the untried size
that is nearest to the best one on its grid; where the sizes of a rate are all tried, the next best
rate's. The best candidate is that of the least geometric mean, over tuning seeds and targets, of
the time to a target; one that missed a target comes after all that missed fewer, and where every
target was missed by all the one that came nearest is chosen.

A training is given up once its candidate cannot be the best any more. That changes no winner, and
the candidate counts as tried.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpace.bench.search import Candidate, Choice
from fedpace.bench.suite import Suite
from fedpace.bench.training import Pair, Spec, Trained, train

Order = tuple[int, float]
"""How good a candidate is, the least the best: targets missed, then the mean logarithm of the
seconds (or the distance in the metric, where every target was missed)."""
Place = tuple[int, int]
"""Index of a rate and of a size on a method's grids."""


@dataclass(frozen=True, slots=True)
class _Tried:
    order: Order
    trained: Sequence[Trained]
    """By tuning seed."""


def next_place(rates: int, sizes: int, tried: Mapping[Place, Order]) -> Place:
    """Return which candidate is tried next.

    Args:
        rates: how many there are.
        sizes: how many there are.
        tried: how good each was that was tried.

    Example:
        >>> next_place(2, 3, {(0, 1): (0, 2.0), (1, 1): (0, 1.0)})
        (1, 0)
    """
    middle = sizes // 2
    for rate in range(rates):
        if (rate, middle) not in tried:
            return rate, middle

    def best(rate: int) -> tuple[Order, int]:
        return min((order, size) for (r, size), order in tried.items() if r == rate)

    for rate in sorted(range(rates), key=best):
        left = [size for size in range(sizes) if (rate, size) not in tried]
        if left:
            return rate, min(left, key=lambda size: (abs(size - best(rate)[1]), size))
    raise AssertionError("every pair was tried; the suite checks that there are enough")


def tune_equally(
    suite: Suite, task: str, method: str, networks: tuple[str, ...], folder: Path
) -> dict[Pair, Choice]:
    """Choose rate and size for a method with `suite.tuning_runs` candidates.

    Args:
        suite: one with `tuning_runs` and `tuning_seeds`.
        task: its name.
        method: its name.
        networks: one name.
        folder: of the finished trainings.
    """
    (network,), (rule,) = networks, suite.rules_of(method)
    rates, sizes = (list(dict.fromkeys(grid)) for grid in suite.grid(method))
    tried: dict[Place, _Tried] = {}
    for _ in range(suite.tuning_runs or 0):
        orders = {place: each.order for place, each in tried.items()}
        place = next_place(len(rates), len(sizes), orders)
        candidate = rates[place[0]], sizes[place[1]]
        best = min(orders.values(), default=None)
        tried[place] = _try(suite, task, method, (network, rule), candidate, best, folder)
    chosen = min(tried, key=lambda place: tried[place].order)
    missed, mean = tried[chosen].order
    every = [training for each in tried.values() for training in each.trained]
    cost = {
        "trainings": len(every),
        "clock_seconds": sum(training.end((network, rule)) for training in every),
        "computing_seconds": sum(training.computing_seconds for training in every),
        "tried": [
            {"rate": dict(rates[r]), "size": dict(sizes[s]), "missed": each.order[0],
             "ended": [training.ended for training in each.trained],
             "targets": [list(t.targets((network, rule)).values()) for t in each.trained]}
            for (r, s), each in tried.items()
        ],
    }  # fmt: skip
    seconds = math.exp(mean) if missed == 0 else None
    return {(network, rule): Choice(rates[chosen[0]], sizes[chosen[1]], seconds, cost)}


def _try(
    suite: Suite,
    task: str,
    method: str,
    pair: Pair,
    candidate: Candidate,
    best: Order | None,
    folder: Path,
) -> _Tried:
    """Train a candidate on every tuning seed; `best` is that of those tried before."""
    seeds = suite.tuning_seeds or []
    goals = len(suite.tasks[task].targets or [suite.tasks[task].target])
    every = len(seeds) * goals
    done: list[Trained] = []

    def beaten(least: Mapping[Pair, Sequence[float]]) -> bool:
        if best is None or best[0] == every:
            return False
        missed = sum(_missed(training, pair, goals) for training in done)
        if missed != best[0] or len(done) < len(seeds) - 1:
            # A missed target stays missed. Of a seed to come nothing is known.
            return missed > best[0]
        logs = [math.log(t) if t > 0 else -math.inf for t in least[pair]]
        known = [log for training in done for log in _logs(training, pair, goals)]
        return math.fsum(known + logs) / every > best[1]

    for seed in seeds:
        spec = Spec(task, method, (pair[0],), *candidate, seed, tuning=True)
        done.append(train(suite, spec, folder, beaten))
    missed = sum(_missed(training, pair, goals) for training in done)
    if missed < every:
        logs = [log for training in done for log in _logs(training, pair, goals)]
        return _Tried((missed, math.fsum(logs) / every), done)
    hardest = suite.tasks[task].hardest
    sign = -1.0 if hardest.metric == "accuracy" else 1.0
    values = [min((sign * v for _, v in t.curve(pair, hardest.metric) if v == v), default=math.inf)
              for t in done]  # fmt: skip
    return _Tried((missed, math.fsum(values) / len(values)), done)


def _times(trained: Trained, pair: Pair, goals: int) -> list[float | None]:
    return list(trained.targets(pair).values()) if goals > 1 else [trained.seconds(pair)]


def _missed(trained: Trained, pair: Pair, goals: int) -> int:
    return sum(seconds is None for seconds in _times(trained, pair, goals))


def _logs(trained: Trained, pair: Pair, goals: int) -> list[float]:
    """The logarithms of the times to each target; a missed one counts with the end."""
    end = trained.end(pair)
    return [math.log(end if t is None else t) for t in _times(trained, pair, goals)]
