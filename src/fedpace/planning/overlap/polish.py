"""The last touch to a schedule of few clients: every probability, rank and the beat by itself."""

import numpy as np

from fedpace.core.profile import Floats
from fedpace.planning.overlap.fleet import Fleet
from fedpace.planning.overlap.schedule import OverlappingSchedule, scheduled
from fedpace.planning.solver.objective import Problem

__all__ = ["polished"]

_FIRST_STEP = 0.2
"""Logarithm of the first moves of the beat; probabilities move twice as far."""
_TIGHTENED_CLIENTS = 4
"""Up to so many clients a changed rank is tried with shorter beats, too: a smaller upload may not
stand in the way of another one, which then fits into them."""
_PARTS = (0.6, 0.99)
"""How far towards the shortest beat that holds everybody."""


def _beats_in_time(fleet: Fleet, made: OverlappingSchedule) -> Floats:
    """Beats of which a few, or about as many as now, just hold what one of the clients needs.

    Ages are whole beats, so the cost falls at each of them: a search by small moves stops before.
    """
    rank = made.sketch_rank.astype(np.float64)
    wait = made.law.age_beats - fleet.age_alone(rank, made.beat_seconds)
    alone = fleet.alone_seconds(rank)
    whole = alone + np.maximum(wait, 0.0) * made.beat_seconds
    age = np.ceil(alone / made.beat_seconds)
    beside = (np.maximum(age + m, 1) for m in (-2, -1, 0, 1))
    held = [need / m for m in (1, 2, 3, *beside) for need in (alone, whole)]
    return np.unique(np.concatenate(held))


def _ranks_beside(fleet: Fleet, made: OverlappingSchedule, n: int, size: float) -> set[float]:
    """Ranks to try for a client: a little and somewhat more or less, and what is a beat sooner.

    A rank that is just in time may lie far from the present one, with worse ones between.
    """
    rank, age = made.sketch_rank.astype(np.float64), made.law.age_beats[n]
    zero, one = (fleet.alone_seconds(level)[n] for level in (np.zeros_like(rank), rank))
    a_rank = (one - zero) / rank[n]
    sooner = [np.floor(age) - back for back in (0, 1)]
    spare = [beats * made.beat_seconds - zero for beats in sooner if beats >= 1]
    in_time = [float(np.floor(left / a_rank)) for left in spare if left > 0 and a_rank > 0]
    wide = (float(np.round(rank[n] * np.exp(step))) for step in (2 * size, -2 * size))
    return {rank[n] + 1, rank[n] - 1, *wide, *in_time}


def _just_held(fleet: Fleet, made: OverlappingSchedule, rank: Floats) -> float:
    """Return the shortest beat that holds everybody, if nobody waits, for as many as now, s."""
    return float((fleet.alone_seconds(rank) / np.ceil(made.law.age_beats)).max())


def polished(
    problem: Problem,
    fleet: Fleet,
    most: Floats,
    start: OverlappingSchedule,
    shortest: float | None,
    theta: float,
) -> tuple[OverlappingSchedule, int]:
    """Move the beat (if `shortest` is one), each probability and each rank while that helps.

    The law of each move begins with that of the best so far, which saves most of its passes.

    Args:
        problem: with the limits.
        fleet: its clients.
        most: largest rank of each, shape (N,).
        start: a schedule that keeps the limits.
        shortest: the shortest beat, s; None: the beat stays.
        theta: price of the delay.

    Returns:
        The schedule, and how many were tried.
    """
    best, tried = start, 0
    limit = problem.p95_limit_seconds

    def tried_with(q: Floats, k: Floats, beat: float) -> bool:
        nonlocal best, tried
        tried += 1
        made = scheduled(fleet, q, k, beat, theta, best.law)
        if limit is not None and made.law.p95_age_seconds() > limit * (1 + 1e-9):
            return False
        if np.any(made.law.chance > fleet.most_often(k, beat) * (1 + 1e-9)):
            return False
        if made.cost.objective_seconds < best.cost.objective_seconds * (1 - 1e-7):
            best = made
            return True
        return False

    size = _FIRST_STEP
    while size > 0.02:
        before = best.cost.objective_seconds
        for n in range(len(fleet)):
            for step in (np.exp(size * 2), np.exp(-size * 2)):
                q = best.start_probability.copy()
                q[n] = np.clip(q[n] * step, problem.q_min, 1.0)
                if q[n] != best.start_probability[n]:
                    tried_with(q, best.sketch_rank.astype(np.float64), best.beat_seconds)
            for rank in sorted(_ranks_beside(fleet, best, n, size)) if size > 0.05 else ():
                k = best.sketch_rank.astype(np.float64)
                k[n] = np.clip(rank, 1, most[n])
                if k[n] != best.sketch_rank[n]:
                    q, beat = best.start_probability, best.beat_seconds
                    tried_with(q, k, beat)
                    if shortest is not None and len(fleet) <= _TIGHTENED_CLIENTS:
                        held = max(_just_held(fleet, best, k), shortest)
                        for closer in (beat + (held - beat) * part for part in _PARTS):
                            tried_with(q, k, closer)
        if shortest is not None:
            steps = np.exp(size * np.array([0.5, -0.5, 0.125, -0.125]))
            in_time = _beats_in_time(fleet, best) if size == _FIRST_STEP else ()
            for beat in (*(best.beat_seconds * steps), *in_time):
                q, k = best.start_probability, best.sketch_rank.astype(np.float64)
                tried_with(q, k, max(float(beat), shortest))
        if best.cost.objective_seconds > before * (1 - 1e-3):
            size /= 2
    q, k = best.start_probability, best.sketch_rank.astype(np.float64)
    return scheduled(fleet, q, k, best.beat_seconds, theta), tried  # its law from the beginning
