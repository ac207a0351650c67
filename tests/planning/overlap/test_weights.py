"""Chances and weights by beat: renewal theory against counting, and what the mean weight is."""

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.planning.overlap.simulation import simulate_queue
from fedpace.planning.overlap.weights import (
    arrival_chances,
    beat_weights,
    cycle_beats,
    present_share,
)

Q = np.array([1.0, 1.0, 0.6, 0.3, 0.05, 0.9])
AGE = np.array([1.0, 4.0, 1.0, 3.0, 6.0, 2.0])


@pytest.mark.slow
def test_the_long_run_frequency_is_what_is_counted():
    run = simulate_queue(Q, AGE - 0.5, np.full(6, 1e-6), 1.0, beats=100_000, seed=0)
    cycle, counts = cycle_beats(Q, AGE), run.updates()
    # A renewal process counts with variance T sigma^2 / mu^3; sigma^2 = (1 - q) / q^2.
    error = np.sqrt(run.beats * (1 - Q) / Q**2 / cycle**3)
    assert np.all(np.abs(counts - run.beats / cycle) <= 4 * error + 1)
    assert np.all(run.age_beats == AGE[run.client])


def test_the_chance_in_each_of_the_first_beats_is_what_is_counted():
    runs, beats = 800, 12
    counted = np.zeros((beats, 6))
    for i in range(runs):
        run = simulate_queue(Q, AGE - 0.5, np.full(6, 1e-6), 1.0, beats=beats, seed=1, purpose=i)
        np.add.at(counted, (run.count_beat, run.client), 1)
    chance = arrival_chances(Q, AGE, beats)
    assert np.all(np.abs(counted / runs - chance) <= 4.5 * np.sqrt(chance * (1 - chance) / runs))


def test_failures_are_counted_too():
    # By the definition, drawn: idle, asked with q, answers with p after 3 beats, or is lost for 5.
    rng, q, p, age, lost, beats = np.random.default_rng(0), 0.7, 0.6, 3, 5, 30_000
    free, count = 0, 0
    for beat in range(beats):
        if beat >= free and rng.random() < q:
            answers = rng.random() < p
            free = beat + (age if answers else lost)
            count += answers
    cycle = float(cycle_beats(q, age, p, lost))
    assert cycle == pytest.approx(beats / count, rel=0.03)
    assert arrival_chances(q, age, 400, p, lost)[-1, 0] == pytest.approx(1 / cycle, rel=1e-6)


def test_unavailable_clients_are_those_asked_less_often():
    assert np.allclose(cycle_beats(Q, AGE, 0.5), cycle_beats(0.5 * Q, AGE))
    assert np.allclose(arrival_chances(Q, AGE, 9, 0.5), arrival_chances(0.5 * Q, AGE, 9))


def test_the_mean_weight_is_the_data_weight_from_the_first_arrival():
    a = np.full(6, 1 / 6)
    beats = 4000
    mean = beat_weights(a, Q, AGE, beats) * arrival_chances(Q, AGE, beats)
    first = AGE.astype(int) - 1
    assert np.allclose(mean[first, np.arange(6)], a)
    assert all(np.all(mean[: first[n], n] == 0) for n in range(6))
    assert np.allclose(mean[-480:].mean(axis=0), a, rtol=1e-9)  # 480: whole cycles of all of them
    for n in range(6):  # the first ten cycles taken together
        ten = round(10 * float(cycle_beats(Q[n], AGE[n])))
        assert mean[first[n] : first[n] + ten, n].mean() == pytest.approx(a[n], rel=0.1)


def test_no_update_weighs_more_than_in_the_long_run():
    a = np.full(7, 1 / 7)
    q, age = np.append(Q, 0.8), np.append(AGE, 1.98)  # hardly ever there after one beat
    weights = beat_weights(a, q, age, 500)
    assert np.all(weights <= a * cycle_beats(q, age) * (1 + 1e-12))
    assert np.allclose(weights[-1], a * cycle_beats(q, age), rtol=1e-3)


def test_synchronous_rounds_have_the_weights_of_independent_sampling():
    a, q, p = np.array([0.2, 0.3, 0.5]), np.array([0.1, 0.5, 1.0]), np.array([1.0, 0.4, 0.9])
    assert np.allclose(beat_weights(a, q, np.ones(3), 20, p), a / (q * p))
    assert np.all(present_share(a, np.ones(3), 20) == pytest.approx(1.0))


@pytest.mark.parametrize("changes, message", [
    (dict(q=0.0), r"start_probability\[0\] is 0"),
    (dict(q=1.5), r"start_probability\[0\] is 1.5"),
    (dict(q=np.nan), r"start_probability\[0\] is nan"),
    (dict(age=0.5), r"age_beats\[0\] is 0.5"),
    (dict(p=0.0), r"availability\[0\] is 0"),
    (dict(m=0.0), r"failure_beats\[0\] is 0"),
])  # fmt: skip
def test_bad_input_is_named(changes, message):
    values = dict(q=0.5, age=2.0, p=0.5, m=1.0) | changes
    with pytest.raises(InputError, match=message):
        cycle_beats(*values.values())
