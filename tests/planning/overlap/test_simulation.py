"""The simulator of the queue against schedules that can be worked out by hand, and a slow twin."""

import heapq

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.rng import rng_for
from fedpace.planning.overlap.simulation import simulate_queue


def twin(chance, ready, upload, beat_seconds, beats, seed):
    """The same queue, one event at a time: (client, beat counted, age)."""
    drawn = rng_for(seed, "simulation", 14, 0).random((beats, len(chance)))
    busy_until, waiting, in_flight, idle = 0.0, [], [], set(range(len(chance)))
    found = []
    for beat in range(beats + 1):
        now = beat * beat_seconds
        while waiting and waiting[0][0] < now:
            at, n, start = heapq.heappop(waiting)
            busy_until = max(busy_until, at) + upload[n]
            in_flight.append((busy_until, n, start))
        for done, n, start in list(in_flight):
            if done <= now + 1e-9 * beat_seconds:
                in_flight.remove((done, n, start))
                found.append((beat, n, beat - start))
                idle.add(n)
        if beat == beats:
            return sorted(found)
        for n in sorted(idle):
            if drawn[beat, n] < chance[n]:
                heapq.heappush(waiting, (now + ready[n], n, beat))
                idle.remove(n)


@pytest.mark.parametrize("load", [0.2, 0.9, 3.0])
def test_it_is_the_queue_followed_one_event_at_a_time(load):
    rng = np.random.default_rng(int(10 * load))
    count, beats = 30, 300
    chance, ready = rng.uniform(0.1, 1, count), rng.lognormal(size=count)
    upload = rng.lognormal(size=count) * load / count
    run = simulate_queue(chance, ready, upload, 0.8, beats=beats, seed=4)
    ours = zip(run.count_beat + 1, run.client, run.age_beats, strict=True)
    assert sorted((int(t), int(n), int(b)) for t, n, b in ours) == twin(
        chance, ready, upload, 0.8, beats, 4
    )


def test_three_clients_by_hand():
    # Ready at 1, 3 and 9 s after a beat of 4 s; uploads of 2, 2 and 1 s, served in that order.
    run = simulate_queue([1, 1, 1], [1.0, 3.0, 9.0], [2.0, 2.0, 1.0], 4.0, beats=6, seed=0)
    # Beat 0: A from 1 to 3, B from 3 to 5, C from 9 on. Counted at beats 1, 2 and, A and B of beat
    # 2 being ready at 9 and 11: C was ready at 9 as well, and A goes first (it has the lower
    # index): A until 11, C until 12, B until 14. C counts at beat 3, aged 3. A of beat 3, ready at
    # 13, waits for B and is done at 16, just in time for beat 4.
    found = list(zip(run.client, run.count_beat + 1, run.age_beats, run.wait_seconds, strict=True))
    assert [f for f in found if f[1] <= 4] == [
        (0, 1, 1, 0.0), (0, 2, 1, 0.0), (1, 2, 2, 0.0),
        (0, 3, 1, 0.0), (2, 3, 3, 2.0), (0, 4, 1, 1.0), (1, 4, 2, 1.0),
    ]  # fmt: skip


def test_a_round_longer_than_anyone_needs_is_a_synchronous_one():
    q = np.array([0.2, 0.5, 1.0])
    run = simulate_queue(q, [1, 2, 3], [0.1, 0.1, 0.1], 10.0, beats=20_000, seed=1)
    assert np.all(run.age_beats == 1)
    spread = np.sqrt(q * (1 - q) / run.beats)
    assert np.all(np.abs(10.0 * run.update_rate() - q) <= 4 * spread)


def test_the_band_is_used_as_much_as_the_updates_need():
    rng = np.random.default_rng(2)
    upload = rng.uniform(0, 0.1, 20)
    run = simulate_queue(np.full(20, 0.4), rng.uniform(0.1, 5, 20), upload, 1.0,
                         beats=20_000, seed=3, warm_up_beats=50)  # fmt: skip
    assert run.utilisation == pytest.approx(run.update_rate() @ upload, rel=1e-3)


def test_the_same_seed_gives_the_same_run_and_another_purpose_another():
    arguments = ([0.5, 0.3], [1.0, 2.0], [0.2, 0.2], 0.7)
    first, again = (simulate_queue(*arguments, beats=50, seed=5) for _ in range(2))
    other = simulate_queue(*arguments, beats=50, seed=5, purpose=1)
    assert np.array_equal(first.count_beat, again.count_beat)
    assert not np.array_equal(first.updates(), other.updates()) or not np.array_equal(
        first.count_beat, other.count_beat
    )


@pytest.mark.parametrize("beat, ready, message", [
    (0.0, 1.0, "beat_seconds is 0.0"), (1.0, 0.0, r"ready_seconds\[0\] is 0"),
])  # fmt: skip
def test_bad_input_is_named(beat, ready, message):
    with pytest.raises(InputError, match=message):
        simulate_queue([1.0], [ready], [1.0], beat, beats=1, seed=0)
