"""A schedule of overlapping rounds, with its law and what it costs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedpace.core.profile import Floats
from fedpace.planning.overlap.fleet import Fleet
from fedpace.planning.overlap.law import QueueLaw, queue_law
from fedpace.planning.overlap.objective import Cost, cost_of

__all__ = ["OverlappingSchedule", "scheduled"]


@dataclass(frozen=True, slots=True, eq=False)
class OverlappingSchedule:
    """A schedule of overlapping rounds and what is predicted of it."""

    beat_seconds: float
    start_probability: Floats
    """q_n, chance that an idle client is asked at a beat, shape (N,)."""
    sketch_rank: NDArray[np.int64]
    law: QueueLaw
    cost: Cost
    verdict: str = "converged"
    statistics: Mapping[str, float] = field(default_factory=dict)


def scheduled(
    fleet: Fleet,
    q: Floats,
    rank: Floats,
    beat: float,
    theta: float,
    start: QueueLaw | None = None,
) -> OverlappingSchedule:
    """Return the schedule of these decisions, with its law and cost.

    Args:
        fleet: the clients.
        q: chance that an idle client is asked at a beat, shape (N,).
        rank: shape (N,); rounded, at least 1.
        beat: D, s.
        theta: price of the delay.
        start: the law of a similar schedule, to save time.
    """
    whole = np.maximum(rank.round(), 1.0)
    law = queue_law(
        q, fleet.ready_seconds(whole), fleet.work_seconds(whole), beat, fleet.lag_seconds(whole),
        fleet.availability, start=start,
    )  # fmt: skip
    return OverlappingSchedule(
        beat, q, whole.astype(np.int64), law, cost_of(fleet, law, whole, theta)
    )
