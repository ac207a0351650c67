"""Which schedule "auto" takes: rounds that overlap, or rounds that wait."""

from fedpace.core.plan import Plan
from fedpace.core.profile import Clients
from fedpace.planning.overlap.in_step import in_step_share

__all__ = ["MOST_IN_STEP", "OVERLAPPING_GAIN", "enough_gain", "overlaps"]

OVERLAPPING_GAIN = 1.3
"""Promised speed-up from which on "auto" overlaps rounds without a bias: promises were 1.1 to 1.6
times too high where they were measured (docs/results.md)."""
BIASED_GAIN = 1.6
"""The same for rounds with a bias: promises of 1.27 to 1.55 came to 0.53 to 1.06, where devices
hardly differ; promises of 1.74 and more to 1.01 to 5.8 (docs/regimes.md, docs/results.md)."""
MOST_IN_STEP = 0.5
"""Share of the data on clients that stay in step from which on "auto" waits for all: with all of it
a plan that promised 1.52 took 1.32 times as long as rounds that wait (docs/log.md)."""


def enough_gain(*, biased: bool) -> float:
    """Return the promised speed-up from which on "auto" overlaps rounds."""
    return BIASED_GAIN if biased else OVERLAPPING_GAIN


def overlaps(beats: Plan, rounds: Plan, clients: Clients) -> bool:
    """Return whether "auto" takes rounds that overlap.

    Args:
        beats: the plan of rounds that overlap.
        rounds: the plan of rounds that wait.
        clients: for whom both were made.
    """
    if beats.verdict.startswith("infeasible") or in_step_share(beats, clients) >= MOST_IN_STEP:
        return False
    if rounds.verdict.startswith("infeasible"):
        return True
    least = enough_gain(biased=beats.aggregation_weight is not None)
    return least * beats.objective_seconds <= rounds.objective_seconds
