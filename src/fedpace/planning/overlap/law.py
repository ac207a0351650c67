r"""Update rates, ages and the use of the band, predicted.

A client that starts at a beat arrives ready + wait + upload later, and counts in the beat after:

.. math:: b_n = \Big\lceil \frac{c_n}{D} \Big\rceil, \qquad
          E[b_n] = b^0_n + \sum_{j \ge 0} P(\text{wait}_n > b^0_n D - c^0_n + j D),

c^0 the time without a wait and b^0 its beats. The mean of the ceiling is not the ceiling of the
mean: a client just before a beat is late whenever it has to wait at all. The wait is `waiting`'s.
"""

from dataclasses import dataclass, replace

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.profile import Floats
from fedpace.planning.overlap.waiting import Waiting, waiting
from fedpace.planning.overlap.weights import cycle_beats

__all__ = ["QueueLaw", "queue_law", "queue_law_at"]

_ROUNDING_BEATS = 1e-9
"""An arrival this close after a beat, in beats, still counts in it."""
_MOST_BEATS_LATE = 24
"""Beats an upload may be late by, at most."""
_LARGEST_USE = 0.98
"""The band's use that the law still looks at."""
_MOST_PASSES = 25
"""Times that ages and waits are made to agree, at most."""
_AGE_TOLERANCE = 3e-4
"""Relative change of the ages at which they agree."""


@dataclass(frozen=True, slots=True, eq=False)
class QueueLaw:
    """What a schedule does, in the long run."""

    beat_seconds: float
    chance: Floats
    """g_n = f_n D: mean number of updates counted in a beat, shape (N,)."""
    age_beats: Floats
    """E[b_n], shape (N,)."""
    late: Floats
    """P(b_n > b0_n + j), shape (J, N)."""
    first_beat: Floats
    """b0_n: beats without a wait, shape (N,)."""
    utilisation: float
    """Share of the time in which the band is in use."""
    members: Floats
    wait: Waiting

    def update_rate(self) -> Floats:
        """Return f_n, updates per second, shape (N,)."""
        return self.chance / self.beat_seconds

    def mean_age_seconds(self) -> float:
        """Return the mean age over updates, s: from the beat it started at to the one it counts."""
        weight = self.members * self.chance
        return float(weight @ self.age_beats / weight.sum() * self.beat_seconds)

    def p95_age_seconds(self) -> float:
        """Return the 95 % quantile of the age over updates, s; a whole number of beats."""
        weight = self.members * self.chance
        steps = np.vstack([np.ones_like(self.chance), self.late])
        mass = weight * (steps - np.vstack([steps[1:], np.zeros_like(self.chance)]))
        beats = self.first_beat + np.arange(len(steps))[:, None]
        count = np.bincount(beats.astype(np.int64).ravel(), mass.ravel())
        below = np.cumsum(count) / count.sum()
        return float(np.argmax(below >= 0.95 - 1e-12) * self.beat_seconds)


def queue_law_at(
    chance: Floats,
    ready_seconds: Floats,
    work_seconds: Floats,
    beat_seconds: float,
    lag_seconds: Floats | None = None,
    members: Floats | None = None,
    start: QueueLaw | None = None,
) -> QueueLaw:
    """Return the law at given update rates; no equation has to be solved.

    Args:
        chance: g_n = f_n D, shape (N,).
        ready_seconds: from the beat until a client can send, shape (N,), s.
        work_seconds: what its upload takes of the whole band, shape (N,), s.
        beat_seconds: D, s.
        lag_seconds: how much longer its upload takes, shape (N,), s; by default 0.
        members: how many clients each entry stands for.
        start: the law of a similar schedule, to save time.

    Returns:
        The law; its utilisation is sum f_n work_n.
    """
    crowd = np.ones(len(chance)) if members is None else members
    lag = 0.0 if lag_seconds is None else lag_seconds
    alone = ready_seconds + work_seconds + lag
    first = np.maximum(np.ceil(alone / beat_seconds - _ROUNDING_BEATS), 1.0)
    slack = first * beat_seconds - alone
    before = None if start is None else start.wait
    wait = waiting(ready_seconds, work_seconds, chance, beat_seconds, members, before)
    late: list[Floats] = []
    while len(late) < _MOST_BEATS_LATE:
        late.append(wait.exceeds(slack + len(late) * beat_seconds))
        if late[-1].max() < _AGE_TOLERANCE:
            break
    table = np.array(late)
    used = float((crowd * chance) @ work_seconds) / beat_seconds
    return QueueLaw(
        beat_seconds, chance, first + table.sum(axis=0), table, first, used, crowd, wait
    )


def queue_law(
    start_probability: Floats,
    ready_seconds: Floats,
    work_seconds: Floats,
    beat_seconds: float,
    lag_seconds: Floats | None = None,
    availability: Floats | float = 1.0,
    members: Floats | None = None,
    start: QueueLaw | None = None,
) -> QueueLaw:
    """Return the law of a schedule: rates and waits that agree with each other.

    Clients that wait long come less often, which shortens the wait: the mean ages are a fixed
    point, found by steps of one half.

    Args:
        start_probability: q_n, shape (N,).
        ready_seconds: from the beat until a client can send, shape (N,), s.
        work_seconds: what its upload takes of the whole band, shape (N,), s.
        beat_seconds: D, s.
        lag_seconds: as for `queue_law_at`.
        availability: p_n; who is asked and does not answer may be asked at the next beat.
        members: how many clients each entry stands for.
        start: the law of a similar schedule, to save time.

    Returns:
        The law.

    Raises:
        InputError: a beat that is not above 0, or a band that cannot carry what is started.

    Example:
        >>> law = queue_law(np.ones(2), np.array([1.0, 2.5]), np.array([0.2, 0.2]), 2.0)
        >>> law.age_beats.tolist(), law.update_rate().tolist()
        ([1.0, 2.0], [0.5, 0.25])
    """
    if not 0 < beat_seconds < np.inf:
        raise InputError(f"beat_seconds is {beat_seconds!r}; give seconds above 0")
    crowd = np.ones(len(ready_seconds)) if members is None else members
    lag = 0.0 if lag_seconds is None else lag_seconds
    alone = (ready_seconds + work_seconds + lag) / beat_seconds
    age = np.maximum(np.ceil(alone - _ROUNDING_BEATS), 1.0)
    law = start
    if start is not None:
        age = np.maximum(age, start.age_beats + age - start.first_beat)
    for step in range(_MOST_PASSES):
        chance = 1 / cycle_beats(start_probability, age, availability)
        used = float((crowd * chance) @ work_seconds) / beat_seconds
        if used > _LARGEST_USE:  # nobody can be served so often: all are later
            age = age + (used / _LARGEST_USE - 1) / chance + _AGE_TOLERANCE
            continue
        law = queue_law_at(
            chance, ready_seconds, work_seconds, beat_seconds, lag_seconds, members, law
        )
        change = law.age_beats - age
        if np.all(np.abs(change) <= _AGE_TOLERANCE * age):
            break
        law = replace(law, age_beats=age)  # those of which the rates are
        age = age + change if step == 0 and start is None else age + change / 2
    if law is None:
        raise InputError(
            f"beat_seconds is {beat_seconds!r}: the band cannot carry what starts at every beat; "
            "give a longer beat or lower start probabilities"
        )
    return law
