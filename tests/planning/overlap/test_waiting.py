"""The work before a client against its recursion, followed beat by beat with drawn starts."""

import numpy as np
import pytest

from fedpace.planning.overlap.waiting import waiting

BEAT = 1.0


def followed(ready, work, chance, of, beats):
    """What client `of` finds before it at each beat, its own uploads left out."""
    phase = np.mod(ready, BEAT)
    order = np.argsort(phase)
    starts = np.random.default_rng(0).random((beats, len(ready))) < chance
    left, at, found = 0.0, 0.0, np.empty(beats)
    for beat in range(beats):
        for n in order:
            now = beat * BEAT + phase[n]
            left, at = max(0.0, left - (now - at)), now
            if n == of:
                found[beat] = left
            elif starts[beat, n]:
                left += work[n]
    return found[beats // 10 :]


READY = np.array([0.1, 0.357, 1.3, 2.619, 0.943])
WORK = np.array([0.317, 0.113, 0.241, 0.389, 0.207])
CHANCE = np.array([0.5, 0.9, 0.3, 0.4, 0.6])


@pytest.mark.parametrize("of", [1, 4])
def test_it_is_the_recursion_followed_beat_by_beat(of):
    law, found = waiting(READY, WORK, CHANCE, BEAT), followed(READY, WORK, CHANCE, of, 40_000)
    assert law.mean()[of] == pytest.approx(found.mean(), rel=0.03, abs=0.004)
    for seconds in (0.08, 0.2, 0.5):
        chance = law.exceeds(np.full(5, seconds))[of]
        assert chance == pytest.approx(np.mean(found > seconds), abs=0.02)


def test_alone_nobody_waits():
    assert waiting(np.array([0.4]), np.array([0.3]), np.array([0.9]), BEAT).mean()[0] == 0


def test_behind_one_other_of_an_earlier_phase_it_is_one_upload_less_the_gap():
    law = waiting(np.array([0.25, 0.5]), np.array([0.4, 0.1]), np.array([0.7, 1.0]), BEAT)
    # 0.4 s of work, a quarter of it a beat's gap before: 0.15 s are left, with chance 0.7.
    assert law.mean()[1] == pytest.approx(0.7 * 0.15, abs=0.7 * BEAT / 128)
    assert law.mean()[0] == 0
