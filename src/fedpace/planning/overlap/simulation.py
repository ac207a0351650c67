"""The queue of overlapping rounds, beat by beat, without training: what the law is held against."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpace.core.arguments import refuse_where
from fedpace.core.errors import InputError
from fedpace.core.profile import Floats
from fedpace.core.rng import rng_for

__all__ = ["QueueRun", "simulate_queue"]

_ROUNDING_BEATS = 1e-9
"""An arrival this close after a beat, in beats, still counts in it."""
_NUMBERS_AT_ONCE = 1 << 20
"""Random numbers drawn at once."""


@dataclass(frozen=True, slots=True, eq=False)
class QueueRun:
    """What was counted in the measured beats of a simulation."""

    beat_seconds: float
    beats: int
    """Measured beats, those of the warm-up left out."""
    client: NDArray[np.int64]
    """Whose update was counted, in order, shape (U,)."""
    count_beat: NDArray[np.int64]
    """The measured beat, 0 to beats - 1, in which it was counted, shape (U,)."""
    age_beats: NDArray[np.int64]
    """b: beats from the one whose adapter it was trained on to the one that counts it, >= 1."""
    wait_seconds: Floats
    """How long it waited for the band, shape (U,)."""
    utilisation: float
    """Share of the measured time in which the band was in use."""
    num_clients: int

    def updates(self) -> NDArray[np.int64]:
        """Count each client's updates, shape (N,)."""
        return np.bincount(self.client, minlength=self.num_clients)

    def update_rate(self) -> Floats:
        """Return f_n, updates per second, shape (N,)."""
        return self.updates() / (self.beats * self.beat_seconds)

    def mean_age_seconds(self) -> float:
        """Return the mean age over updates, s; one beat where nobody is ever late."""
        return float(self.age_beats.mean()) * self.beat_seconds

    def p95_age_seconds(self) -> float:
        """Return the 95 % quantile of the age over updates, s."""
        level = np.quantile(self.age_beats, 0.95, method="inverted_cdf")
        return float(level) * self.beat_seconds


def simulate_queue(
    start_probability: ArrayLike,
    ready_seconds: ArrayLike,
    upload_seconds: ArrayLike,
    beat_seconds: float,
    *,
    beats: int,
    seed: int,
    warm_up_beats: int = 0,
    purpose: int = 0,
) -> QueueRun:
    """Follow every client from beat to beat.

    At each beat every idle client starts with its probability, independently of all. It is ready
    `ready_seconds` after the beat, is served by the whole band in the order in which clients
    became ready (the workload of every other division that never idles is the same), and its
    update counts at the first beat after it has arrived; from that beat on it is idle. At the first
    beat everyone is.

    Args:
        start_probability: chance that an idle client starts at a beat and will answer (with
            availability p: q p), in (0, 1], shape (N,).
        ready_seconds: from the beat until the client can send: the overhead of the server,
            download, local steps; above 0, shape (N,), s.
        upload_seconds: upload alone in the whole band, shape (N,), s.
        beat_seconds: D, s.
        beats: how many are measured.
        seed: of the stream "simulation".
        warm_up_beats: so many go before.
        purpose: makes runs of one seed independent.

    Returns:
        The updates counted in beats warm_up_beats + 1, ..., warm_up_beats + beats.

    Raises:
        InputError: a beat that is not above 0, or a client that would be ready before its start.

    Example:
        >>> run = simulate_queue([1, 1], [1.0, 2.5], [0.5, 0.5], 2.0, beats=4, seed=0)
        >>> run.client.tolist(), run.count_beat.tolist(), run.age_beats.tolist()
        ([0, 0, 1, 0, 0, 1], [0, 1, 1, 2, 3, 3], [1, 1, 2, 1, 1, 2])
    """
    chance, ready, upload = (
        np.atleast_1d(np.asarray(column, dtype=np.float64))
        for column in (start_probability, ready_seconds, upload_seconds)
    )
    if not 0 < beat_seconds < np.inf:
        raise InputError(f"beat_seconds is {beat_seconds!r}; give seconds above 0")
    refuse_where(~(ready > 0), "ready_seconds", ready, "be above 0")
    count, rng = len(chance), rng_for(seed, "simulation", 14, purpose)
    free_beat = np.zeros(count, dtype=np.int64)  # idle from this beat on
    started = np.zeros(count, dtype=np.int64)
    ready_at = np.full(count, np.inf)
    never = np.iinfo(np.int64).max
    busy_until, busy_time = 0.0, 0.0
    clients, counted, ages, waits = [], [], [], []
    last = warm_up_beats + beats
    rows = max(1, _NUMBERS_AT_ONCE // count)
    for beat in range(last):
        if beat % rows == 0:
            drawn = rng.random((min(rows, last - beat), count)) < chance
        now, following = beat * beat_seconds, (beat + 1) * beat_seconds
        starts = np.flatnonzero(drawn[beat % rows] & (free_beat <= beat))
        started[starts], free_beat[starts] = beat, never
        ready_at[starts] = now + ready[starts]

        # Who is ready by the next beat is served before anyone who starts then.
        served = np.flatnonzero(ready_at < following)
        if len(served) == 0:
            continue
        served = served[np.argsort(ready_at[served], kind="stable")]
        at, work = ready_at[served], np.cumsum(upload[served])
        before = work - upload[served]
        done = work + np.maximum(busy_until, np.maximum.accumulate(at - before))
        begun = done - upload[served]
        arrival = np.ceil(done / beat_seconds - _ROUNDING_BEATS).astype(np.int64)
        if beat >= warm_up_beats:
            busy_time += work[-1]
        clients.append(served)
        counted.append(arrival)
        ages.append(arrival - started[served])
        waits.append(begun - at)
        free_beat[served] = arrival
        ready_at[served] = np.inf
        busy_until = float(done[-1])

    joined = [np.concatenate([*part, np.empty(0)]) for part in (clients, counted, ages, waits)]
    order = np.lexsort((joined[0], joined[1]))
    order = order[(joined[1][order] > warm_up_beats) & (joined[1][order] <= last)]
    who, when, age = (part[order].astype(np.int64) for part in joined[:3])
    return QueueRun(
        beat_seconds, beats, who, when - warm_up_beats - 1, age, joined[3][order],
        busy_time / (beats * beat_seconds), count,
    )  # fmt: skip
