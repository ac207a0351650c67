"""The law of the queue: cases known exactly, and the simulator where they are not."""

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.planning.overlap.law import queue_law, queue_law_at
from fedpace.planning.overlap.simulation import simulate_queue
from fedpace.planning.overlap.waiting import waiting


def some_queue(seed, count, used, spread=1.0, beat=1.0):
    """Start probabilities, seconds until ready and of upload, with about that use of the band."""
    rng = np.random.default_rng(seed)
    start, ready = rng.uniform(0.05, 0.9, count), rng.lognormal(sigma=spread, size=count)
    upload = rng.lognormal(sigma=0.5, size=count)
    rate = 1 / (beat * (np.ceil(ready / beat) + (1 - start) / start))
    return start, ready, upload * used / (rate @ upload), beat


@pytest.mark.parametrize("seed, count, used, spread", [
    (0, 6, 0.3, 1.0), (1, 15, 0.6, 0.5), (2, 60, 0.85, 1.0), (3, 300, 0.9, 0.3), (4, 300, 0.9, 1.5),
])  # fmt: skip
def test_it_predicts_what_the_simulator_counts(seed, count, used, spread):
    queue = some_queue(seed, count, used, spread)
    law = queue_law(*queue)
    run = simulate_queue(*queue, beats=int(min(10_000, 1e6 / count)), seed=seed, warm_up_beats=200)
    assert law.update_rate().sum() == pytest.approx(run.update_rate().sum(), rel=0.02)
    assert law.utilisation == pytest.approx(run.utilisation, rel=0.02)
    assert law.mean_age_seconds() == pytest.approx(run.mean_age_seconds(), rel=0.02)
    assert abs(law.p95_age_seconds() - run.p95_age_seconds()) <= queue[-1]
    assert run.wait_seconds.mean() > 0.005 * run.mean_age_seconds()  # there is a queue to predict


def test_without_a_queue_it_is_renewal_theory():
    q, ready = np.array([0.2, 0.7, 1.0]), np.array([0.5, 1.5, 3.2])
    law = queue_law(q, ready, np.full(3, 1e-9), 1.0, availability=np.array([1.0, 0.5, 1.0]))
    assert np.allclose(law.age_beats, [1, 2, 4])
    assert np.allclose(law.update_rate(), [0.2, 1 / (1 / 0.35 + 1), 1 / 4])
    assert law.p95_age_seconds() == 4.0


def test_two_clients_of_one_phase_wait_for_each_other():
    # Both are ready half a second after the beat. B starts every other beat on average; A, which
    # is first in line, never waits, B waits for A's upload whenever A came.
    wait = waiting(np.array([0.5, 0.5]), np.array([0.3, 0.2]), np.array([0.4, 0.5]), 1.0)
    assert np.allclose(wait.mean(), [0.0, 0.4 * 0.3], atol=0.003)
    assert wait.exceeds(np.array([0.1, 0.1])) == pytest.approx([0.0, 0.4], abs=1e-9)
    assert wait.exceeds(np.array([0.1, 0.35]))[1] == pytest.approx(0.0, abs=1e-9)


def test_arrivals_spread_over_the_beat_wait_as_in_m_d_1():
    # Arrivals spread evenly over the beat and hardly any at a time: Poisson, as good as.
    count, used = 400, 0.7
    ready = np.linspace(0, 1, count, endpoint=False) + 0.0001
    chance, upload = np.full(count, 0.02), np.full(count, used / (0.02 * count))
    wait = float(waiting(ready, upload, chance, 1.0).mean().mean())
    # M/D/1, but that the sum over a beat is binomial and a client comes once a beat at most.
    assert wait == pytest.approx(used * upload[0] / (2 * (1 - used)), rel=0.05)


def test_the_mean_age_is_not_the_ceiling_of_the_mean():
    # B needs 0.95 s and waits 0.1 s for A in half of the beats: one beat or two.
    law = queue_law_at(np.array([0.5, 0.3]), np.array([0.8, 0.85]), np.array([0.15, 0.1]), 1.0)
    assert law.age_beats == pytest.approx([1.0, 1.5], abs=0.02)


def test_a_group_is_its_members():
    start, ready, upload, beat = some_queue(7, 40, 0.7)
    many = [np.repeat(column, 5) for column in (start, ready, upload / 5)]
    each = queue_law(*many, beat)
    group = queue_law(start, ready, upload / 5, beat, members=np.full(40, 5.0))
    assert group.age_beats == pytest.approx(each.age_beats.reshape(40, 5).mean(axis=1), abs=0.03)
    assert group.utilisation == pytest.approx(each.utilisation, rel=0.003)


def test_more_asked_than_the_band_can_carry_is_carried_late():
    law = queue_law(np.full(12, 1.0), np.full(12, 0.5), np.full(12, 0.2), 1.0)
    assert 0.9 < law.utilisation <= 1
    assert law.age_beats.mean() == pytest.approx(2.4, rel=0.1)  # 12 uploads of 0.2 s
    with pytest.raises(InputError, match="beat_seconds is nan"):
        queue_law(np.ones(1), np.ones(1), np.ones(1), np.nan)
