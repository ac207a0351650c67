r"""How often a client's update is counted in a beat, and what weight that gives it.

A client is idle for (1 - q)/q beats on average, starts, and is busy for b beats until its update
counts; a start that brings nothing keeps it busy for m beats. So its updates are a renewal process,
with the mean cycle of `cycle_beats`. In the long run a weight of a_n times the cycle makes every
client's mean weight in a beat a_n. In the first beats the counts are not those of the long run: all
clients were idle at the start, and slow ones cannot have arrived. `arrival_chances` has the exact
chance of every beat, `beat_weights` the weights that follow.
"""

import numpy as np
from numpy.typing import ArrayLike

from fedpace.core.arguments import refuse_where
from fedpace.core.profile import Floats

__all__ = ["arrival_chances", "beat_weights", "cycle_beats", "present_share"]


def cycle_beats(
    start_probability: ArrayLike,
    age_beats: ArrayLike,
    availability: ArrayLike = 1.0,
    failure_beats: ArrayLike = 1.0,
) -> Floats:
    """Return the mean number of beats from one counted update of a client to its next.

    b + (1 - q)/q + (1/p - 1) (m + (1 - q)/q): the busy and the idle beats of the start that
    succeeds, and those of the starts before it that did not. The update rate is
    f_n = 1 / (D cycle), the long-run weight a_n cycle.

    Args:
        start_probability: q_n, chance that an idle client is asked at a beat, in (0, 1].
        age_beats: E[b_n], mean beats from a start to the beat that counts its update, >= 1.
        availability: p_n, chance that a client that is asked answers, in (0, 1].
        failure_beats: m_n, beats until a client that did not answer may be asked again, >= 1.

    Returns:
        Beats, broadcast shape of the arguments; >= 1.

    Example:
        >>> cycle_beats([1.0, 0.5, 0.25], [3.0, 1.0, 2.0]).tolist()
        [3.0, 2.0, 5.0]
        >>> float(cycle_beats(0.5, 1.0, availability=0.5))  # as if asked with q p = 1/4
        4.0
    """
    q, b, p, m = (
        np.asarray(column, dtype=np.float64)
        for column in (start_probability, age_beats, availability, failure_beats)
    )
    for name, column, wrong, rule in (
        ("start_probability", q, ~((q > 0) & (q <= 1)), "lie in (0, 1]"),
        ("age_beats", b, ~(b >= 1), "be at least 1"),
        ("availability", p, ~((p > 0) & (p <= 1)), "lie in (0, 1]"),
        ("failure_beats", m, ~(m >= 1), "be at least 1"),
    ):
        refuse_where(wrong, name, column, rule)
    idle = (1 - q) / q
    return np.asarray(b + idle + (1 / p - 1) * (m + idle))


def arrival_chances(
    start_probability: ArrayLike,
    age_beats: ArrayLike,
    beats: int,
    availability: ArrayLike = 1.0,
    failure_beats: ArrayLike = 1.0,
) -> Floats:
    """Return the chance that a client's update counts in beat 1, 2, ..., all idle at beat 0.

    The renewal equation: a client is idle at beat t if it was at t - 1 and did not start, or if its
    update counts at t, or if it was given up at t; its update counts at t with the chance that it
    started, and will answer, b beats before. A mean age between whole numbers is one or the other.

    Args:
        start_probability: q_n, shape (N,).
        age_beats: E[b_n], shape (N,).
        beats: how many, T.
        availability: p_n.
        failure_beats: m_n.

    Returns:
        Shape (T, N); row t - 1 is beat t. Rows tend to 1 / `cycle_beats`.

    Example:
        >>> arrival_chances([1.0, 0.5], [2.0, 1.0], 4).T.tolist()
        [[0.0, 1.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5]]
    """
    cycle_beats(start_probability, age_beats, availability, failure_beats)
    q, b, p, m = np.broadcast_arrays(
        *(
            np.atleast_1d(np.asarray(column, dtype=np.float64))
            for column in (start_probability, age_beats, availability, failure_beats)
        )
    )
    idle = np.zeros((beats + 1, len(q)))
    counted = np.zeros((beats + 1, len(q)))
    idle[0] = 1.0
    column = np.arange(len(q))

    def before(t: int, lag: Floats) -> Floats:
        """How likely a client was idle `lag` beats before t; a lag between beats is a mixture."""
        low = np.floor(lag).astype(np.int64)
        part = lag - low
        first = np.where(low <= t, idle[np.maximum(t - low, 0), column], 0.0)
        second = np.where(low < t, idle[np.maximum(t - low - 1, 0), column], 0.0)
        return np.asarray((1 - part) * first + part * second)

    for t in range(1, beats + 1):
        counted[t] = q * p * before(t, b)
        given_up = q * (1 - p) * before(t, m)
        idle[t] = (1 - q) * idle[t - 1] + counted[t] + given_up
    return counted[1:]


def beat_weights(
    data_weight: ArrayLike,
    start_probability: ArrayLike,
    age_beats: ArrayLike,
    beats: int,
    availability: ArrayLike = 1.0,
    failure_beats: ArrayLike = 1.0,
) -> Floats:
    """Return the weight of each client's update, by the beat that counts it.

    a_n over the client's mean chance to be counted, taken over the last cycle of beats or, in the
    beginning, over the beats since the first in which it can be counted. So the mean weight is a_n
    in that first beat and over every cycle since; an update stands for the beats that passed
    without one, and never weighs more than in the long run. Dividing by the chance of the beat
    alone would make the mean a_n in each beat, and the weight of a rare beat without limit: a
    client that starts whenever it is idle is counted every b beats and hardly ever between. The
    weight of those who cannot have arrived yet is given to nobody: see `present_share`.

    Args:
        data_weight: a_n, shape (N,).
        start_probability: q_n, shape (N,).
        age_beats: E[b_n], shape (N,).
        beats: how many, T.
        availability: p_n.
        failure_beats: m_n.

    Returns:
        Shape (T, N); row t - 1 is beat t, 0 where the client cannot have arrived. Rows tend to
        a_n `cycle_beats`, which holds for all later beats.

    Example:
        >>> beat_weights([0.75, 0.25], [1.0, 0.5], [2.0, 1.0], 4).T.tolist()
        [[0.0, 0.75, 1.5, 1.5], [0.5, 0.5, 0.5, 0.5]]
    """
    a = np.atleast_1d(np.asarray(data_weight, dtype=np.float64))
    chances = arrival_chances(start_probability, age_beats, beats, availability, failure_beats)
    cycle = np.broadcast_to(
        cycle_beats(start_probability, age_beats, availability, failure_beats), a.shape
    )
    first = np.broadcast_to(np.floor(np.asarray(age_beats, dtype=np.float64)), a.shape)
    total = np.concatenate([np.zeros((1, len(a))), np.cumsum(chances, axis=0)])
    beat, column = np.arange(1, beats + 1)[:, None], np.arange(len(a))
    span = np.clip(beat - first + 1, 0, np.round(cycle)).astype(np.int64)
    counts = total[1:] - total[beat - span, column]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts > 0, a * np.minimum(span / counts, cycle), 0.0)


def present_share(data_weight: ArrayLike, age_beats: ArrayLike, beats: int) -> Floats:
    """Return the data weight of the clients whose update can have arrived, by beat.

    A client whose mean age lies between whole numbers is there in part.

    Args:
        data_weight: a_n, shape (N,).
        age_beats: E[b_n], shape (N,).
        beats: how many, T.

    Returns:
        Shape (T,); entry t - 1 is beat t.

    Example:
        >>> present_share([0.75, 0.25], [2.5, 1.0], 4).tolist()
        [0.25, 0.625, 1.0, 1.0]
    """
    a = np.atleast_1d(np.asarray(data_weight, dtype=np.float64))
    late = np.broadcast_to(np.asarray(age_beats, dtype=np.float64), a.shape)
    beat = np.arange(1, beats + 1)[:, None]
    return np.asarray(np.clip(beat - late + 1, 0.0, 1.0) @ a)
