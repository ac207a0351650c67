"""The sentence that says how a run went, also where it went badly."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedpace.core.record import RoundRecord
from fedpace.core.target import Target
from fedpace.reporting.metrics import curve
from fedpace.reporting.units import ratio_text, seconds_text

_SAME = 0.005
"""Times that differ by less than this share are called the same."""


def headline(
    summary: Mapping[str, Any], target: Target | None, records: Mapping[str, Sequence[RoundRecord]]
) -> str:
    """Say which method reached the target when, and how much sooner or later than the others.

    Args:
        summary: summary.json; its first method is the subject.
        target: None if the run had none.
        records: by method, for the best value of a method that did not reach the target.

    Returns:
        One to three sentences.
    """
    methods = summary["methods"]
    if target is None:
        endings = _and([_ending(name, entry) for name, entry in methods.items()])
        return f"No target was set; {endings}."
    reached = {name: entry["time_to_target_seconds"] for name, entry in methods.items()}
    goal = f"{target.metric} {target.value:g}"
    first, *others = methods
    ends = {name: _best(target, records[name]) for name in methods}
    for name, entry in methods.items():
        if entry.get("diverged"):
            ends[name] = f"it diverged at round {entry['diverged']}, {ends[name]}"
    if all(seconds is None for seconds in reached.values()):
        if not others:
            return f"{first} did not reach {goal}: {ends[first]}."
        return f"No method reached {goal}." + "".join(f" {n}: {ends[n]}." for n in methods)
    late = [name for name in others if reached[name] is None]
    failed = "".join(f" {name} did not reach it: {ends[name]}." for name in late)
    there = [name for name in others if reached[name] is not None]
    if reached[first] is None:
        theirs = _and([f"{name} in {seconds_text(reached[name])}" for name in there])
        return f"{first} did not reach {goal}: {ends[first]}. It was reached by {theirs}.{failed}"
    comparison = _and(
        [f"{_compare(summary['speedup'][n])} {n} ({seconds_text(reached[n])})" for n in there]
    )
    return (
        f"{first} reached {goal} in {seconds_text(reached[first])}"
        f"{', ' + comparison if comparison else ''}.{failed}"
    )


def _compare(ratio: float | None) -> str:
    if ratio is None:
        return "against"
    if abs(ratio - 1) < _SAME:
        return "as fast as"
    return (
        f"{ratio_text(ratio)} faster than" if ratio > 1 else f"{ratio_text(1 / ratio)} slower than"
    )


def _best(target: Target, records: Sequence[RoundRecord]) -> str:
    values = curve(records, target.metric)[1]
    values = values[np.isfinite(values)]
    clock = seconds_text(records[-1].clock_seconds)
    if not len(values):
        return f"never evaluated to a number in {clock}"
    best = values.max() if target.metric == "accuracy" else values.min()
    return f"its best was {best:.3g}, in {clock}"


def _ending(name: str, entry: Mapping[str, Any]) -> str:
    if entry.get("diverged"):
        return f"{name} diverged at round {entry['diverged']}"
    metric = "accuracy" if entry.get("final_accuracy") is not None else "loss"
    value = entry[f"final_{metric}"]
    end = "was not evaluated" if value is None else f"ended at {metric} {value:.3g}"
    return f"{name} {end} in {seconds_text(entry['clock_seconds'])}"


def _and(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
