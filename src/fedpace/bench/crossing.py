"""When a curve of evaluations crosses a target: smoothed, monotone, read off between evaluations.

An evaluation on a few hundred examples is noisy, and the first lucky one would decide. So the curve
is averaged over two neighbouring evaluations (the first stays as it is), then the best so far is
taken, and the crossing is interpolated linearly on the clock between two evaluations.
"""

import math
from collections.abc import Mapping, Sequence

from fedpace.core.target import Target

Curve = Sequence[tuple[float, float]]
"""(clock in s, held-out metric) at every evaluation, in order; nan where the model had diverged."""

_TOLERANCE = 1e-9
"""A mean of two shares of some hundreds reaches a target that it equals, whatever the rounding."""


def measured(evaluation: Mapping[str, float], metric: str) -> float:
    """Return the metric, or nan where anything measured is not finite: then it says nothing."""
    return evaluation[metric] if all(map(math.isfinite, evaluation.values())) else math.nan


def best_so_far(curve: Curve, metric: str, *, averaged: bool = True) -> list[tuple[float, float]]:
    """Return the smoothed, monotone curve; it begins at the first finite evaluation.

    Args:
        curve: of evaluations.
        metric: "accuracy" grows, "loss" falls.
        averaged: over two neighbours.

    Example:
        >>> best_so_far([(1.0, 0.25), (2.0, 0.75), (3.0, 0.0)], "accuracy")
        [(1.0, 0.25), (2.0, 0.5), (3.0, 0.5)]
    """
    better = max if metric == "accuracy" else min
    made: list[tuple[float, float]] = []
    before: float | None = None
    for seconds, value in curve:
        mean = (before + value) / 2 if averaged and before is not None else value
        if math.isfinite(mean):
            made.append((seconds, better(mean, made[-1][1]) if made else mean))
        elif made:
            made.append((seconds, made[-1][1]))
        before = value
    return made


def seconds_to(curve: Curve, target: Target, *, averaged: bool = True) -> float | None:
    """Return when the smoothed, monotone curve first reaches a target, s; None if it does not.

    A curve that begins at the target or beyond it reaches it at its first evaluation.

    Args:
        curve: of evaluations.
        target: of the curve's metric.
        averaged: over two neighbours.

    Example:
        >>> seconds_to([(10.0, 0.5), (20.0, 0.9)], Target.parse("accuracy>=0.6"))
        15.0
    """
    sign = 1.0 if target.metric == "accuracy" else -1.0
    last: tuple[float, float] | None = None
    for seconds, value in best_so_far(curve, target.metric, averaged=averaged):
        if sign * (value - target.value) >= -_TOLERANCE:
            if last is None:
                return seconds
            part = (target.value - last[1]) / (value - last[1])
            return last[0] + min(part, 1.0) * (seconds - last[0])
        last = seconds, value
    return None
