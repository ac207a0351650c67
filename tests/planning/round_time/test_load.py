"""The law of a sum of independent loads, against listing all sets of participants."""

import itertools

import numpy as np
import pytest

from fedpace.planning.round_time.band_smoothing import band_smoothing
from fedpace.planning.round_time.load import Waves


def _listed(load, probability, smoothing, accept):
    """P(load fits the smoothing) by listing all sets of participants; load of shape (N,)."""
    total = 0.0
    for joined in itertools.product([0, 1], repeat=len(load)):
        joined = np.array(joined)
        chance = np.prod(np.where(joined, probability * accept, 1 - probability))
        total += chance * smoothing.tail(joined @ load)
    return total


# One of each class: light, computed wave by wave, beyond the band, and blocked.
LOAD = np.array([1e-6, 0.004, 0.02, 0.3, 0.45, 1.3, 58.0])
PROBABILITY = np.array([0.9, 0.5, 0.3, 0.6, 0.2, 0.1, 0.4])


@pytest.mark.parametrize("terms", [4, 12, 32])
@pytest.mark.parametrize("limited", [False, True])
def test_the_law_is_that_of_all_sets_of_participants(terms, limited):
    smoothing = band_smoothing(terms)
    accept = np.where(np.arange(7) % 3 == 2, 0.7, 1.0) if limited else np.ones(7)
    loads = np.stack([LOAD, LOAD[::-1], 3 * LOAD])
    waves = Waves(loads, PROBABILITY, smoothing, np.tile(accept, (3, 1)) if limited else None)
    value = (smoothing.weights @ waves.products()).real
    expected = [_listed(load, PROBABILITY, smoothing, accept) for load in loads]
    np.testing.assert_allclose(value, expected, atol=2e-8)


@pytest.mark.parametrize("q", [0.001, 0.2, 0.5, 0.8, 1.0])
def test_many_light_loads_are_summed_by_their_cumulants(q):
    smoothing = band_smoothing(8)
    z = smoothing.exponents
    load = np.linspace(0.1, 0.49, 50) / abs(z[-1])
    chance = np.full(50, q)
    waves = Waves(load[None], chance, smoothing)
    direct = 1 - q + q * np.exp(-np.outer(z, load))
    np.testing.assert_allclose(waves.products()[:, 0], direct.prod(axis=1), rtol=2e-6)
    # With weights e_j only wave j is left: its derivatives are those of the product.
    for j in (0, 4, 8):
        only = np.where(np.arange(9) == j, direct.prod(axis=1), 0)[:, None]
        d_probability, d_load, _ = waves.gradient(only)
        others = only[j, 0] / direct[j]
        wave = np.exp(-z[j] * load)
        np.testing.assert_allclose(d_probability[0], (others * (wave - 1)).real, atol=2e-6)
        np.testing.assert_allclose(d_load[0], (-z[j] * q * wave * others).real, atol=2e-4)


@pytest.mark.parametrize("terms", [4, 32])
def test_its_gradient_is_that_of_all_sets_of_participants(terms):
    smoothing, h = band_smoothing(terms), 1e-5
    waves = Waves(LOAD[None], PROBABILITY, smoothing)
    d_probability, d_load, _ = waves.gradient(smoothing.weights[:, None] * waves.products())
    for n in range(7):
        unit = np.eye(7)[n]
        with_it, without = (
            _listed(LOAD, np.where(unit == 1, q, PROBABILITY), smoothing, np.ones(7))
            for q in (1.0, 0.0)
        )
        assert d_probability[0, n] == pytest.approx(with_it - without, abs=1e-6)
        step = max(h * LOAD[n], 1e-7)
        more, less = (
            _listed(LOAD + side * step * unit, PROBABILITY, smoothing, np.ones(7))
            for side in (1, -1)
        )
        assert d_load[0, n] == pytest.approx((more - less) / (2 * step), rel=1e-4, abs=1e-5)


def test_its_gradient_in_the_acceptance_is_that_of_all_sets_of_participants():
    smoothing, load = band_smoothing(8), np.array([0.05, 0.3, 0.6])
    q, accept = np.array([0.5, 0.7, 0.4]), np.array([0.2, 0.6, 0.9])
    waves = Waves(load[None], q, smoothing, accept[None])
    _, _, d_log = waves.gradient(smoothing.weights[:, None] * waves.products())
    for n in range(3):
        more, less = (
            _listed(load, q, smoothing, accept * np.exp(side * 1e-5 * np.eye(3)[n]))
            for side in (1, -1)
        )
        assert d_log[0, n] == pytest.approx((more - less) / 2e-5, rel=1e-6, abs=1e-9)


def test_a_certain_participant_that_is_blocked_leaves_no_chance_but_a_gradient():
    smoothing = band_smoothing(8)
    waves = Waves(np.array([[50.0, 0.1]]), np.array([1.0, 0.5]), smoothing)
    products = smoothing.weights[:, None] * waves.products()
    assert products.sum().real == pytest.approx(0, abs=1e-12)
    d_probability, _, _ = waves.gradient(products)
    assert d_probability[0, 0] == pytest.approx(-1, rel=1e-6)
