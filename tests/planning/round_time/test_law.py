"""The law itself: its distribution against all sets of participants, and a part for the whole."""

import itertools

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.profile import Clients, System
from fedpace.planning.round_time.band_smoothing import band_smoothing
from fedpace.planning.round_time.law import RoundLaw

SYSTEM = System(
    bandwidth_hz=1e6, lora_rank=8, bits_per_rank=1e5, fixed_bits=2e5, allocation="equal-finish"
)
EFFICIENCY = np.array([1.0, 2.0, 0.5, 3.0])
STEP_SECONDS = np.array([0.2, 0.5, 1.0, 0.1])
Q, K = np.array([0.3, 0.9, 0.5, 0.7]), np.array([8.0, 4.0, 2.0, 6.0])


def clients(repeated=1):
    return Clients.from_columns(
        data_weight=np.ones(4 * repeated),
        step_seconds=np.tile(STEP_SECONDS, repeated),
        spectral_efficiency=np.tile(EFFICIENCY, repeated),
        availability=np.full(4 * repeated, 0.8),
    )


def test_it_is_the_chance_that_the_needs_of_those_who_join_fit_the_smoothed_band():
    law, smoothing = RoundLaw.of(Q, K, clients(), SYSTEM), band_smoothing(12)
    start = SYSTEM.local_steps * STEP_SECONDS
    seconds = np.array([2.0, 4.0, 6.0, 9.0])
    expected = np.zeros(4)
    for joined in itertools.product([0, 1], repeat=4):
        chance = np.prod(np.where(joined, 0.8 * Q, 1 - 0.8 * Q))
        for m, s in enumerate(seconds):
            left = np.maximum(s - start, 1e-9)
            share = np.minimum((2e5 + 1e5 * K) / left / EFFICIENCY / 1e6, 60.0)
            expected[m] += chance * smoothing.tail(np.asarray(np.dot(joined, share)))
    np.testing.assert_allclose(law.cdf(seconds, smoothing), expected, atol=1e-7)


def test_a_round_is_empty_with_the_product_of_the_absences():
    law = RoundLaw.of(Q, K, clients(), SYSTEM)
    assert law.empty() == pytest.approx(np.prod(1 - 0.8 * Q))


@pytest.mark.parametrize("every", [1, 3])
def test_a_part_of_many_equal_clients_on_as_much_less_band_takes_about_as_long(every):
    many = RoundLaw.of(np.full(1200, 0.05), np.full(1200, 8.0), clients(300), SYSTEM)
    part = many.thinned(every)
    assert len(part) == 1200 // every
    assert part.probability.sum() / part.band == pytest.approx(
        many.probability.sum() / many.band, rel=1e-9
    )
    middle = np.array([float(many.solo.sum() * 0.04 * scale + 5.0) for scale in (0.8, 1.0, 1.2)])
    smoothing = band_smoothing(8)
    np.testing.assert_allclose(part.cdf(middle, smoothing), many.cdf(middle, smoothing), atol=0.05)


@pytest.mark.parametrize("q, k, message", [
    ([0.5] * 3, [8.0] * 4, r"sampling_probability has shape \(3,\); there are 4 clients"),
    ([0.5, 0.0, 0.5, 0.5], [8.0] * 4, r"of client '1' is 0; it must lie in \(0, 1\]"),
    ([0.5] * 4, [8.0, 8.0, -1.0, 8.0], r"sketch_rank of client '2' is -1; it must be above 0"),
])  # fmt: skip
def test_what_is_no_plan_is_refused(q, k, message):
    with pytest.raises(InputError, match=message):
        RoundLaw.of(q, k, clients(), SYSTEM)
