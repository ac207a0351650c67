"""The smoothing of the band, the law of the load that is built on it, and averages over hats."""

import itertools

import numpy as np
import pytest

from fedpace.planning.round_time.band_smoothing import band_smoothing
from fedpace.planning.round_time.load import Waves
from fedpace.planning.round_time.quadrature import (
    average_over_hats,
    hats,
    place_quadrature,
    reaches,
)

TERMS = [2, 6, 8, 12, 32, 40]


@pytest.mark.parametrize("terms", TERMS)
def test_the_tail_falls_from_one_to_nothing_and_never_rises(terms):
    x = np.linspace(0, 12, 24001)
    tail = band_smoothing(terms).tail(x)
    assert tail[0] == pytest.approx(1, abs=1e-12)
    assert np.all(np.diff(tail) <= 1e-12)
    assert 0 <= tail[-1] < 1e-4


@pytest.mark.parametrize("terms", TERMS)
def test_an_upload_takes_its_own_time_on_average_and_the_spread_that_is_stated(terms):
    smoothing = band_smoothing(terms)
    # Below 0.003 the density is x^2 small, and the rounding of its waves is not.
    x = np.concatenate([np.arange(0.003, 10, 1e-4), np.geomspace(10, 300, 4000)])
    z = smoothing.exponents
    density = sum((b * a * np.exp(-a * x)).real for a, b in zip(z, smoothing.weights, strict=True))
    mass = density * np.gradient(x)
    assert mass.sum() == pytest.approx(1, abs=1e-5)
    assert mass @ (1 / x) == pytest.approx(1, abs=1e-5)
    assert np.sqrt(mass @ (1 / x - 1) ** 2) == pytest.approx(smoothing.spread, rel=5e-3)


@pytest.mark.parametrize("terms", TERMS)
def test_the_spread_is_about_three_quarters_of_one_over_the_terms(terms):
    assert 0.65 < terms * band_smoothing(terms).spread < 0.85


@pytest.mark.parametrize("terms", [6, 40])
def test_no_other_polynomial_of_the_family_has_less_spread(terms):
    """Densities e^-x |p(e^iwx)|^2 with p(1) = 0, drawn near the eigenvector and at random."""
    smoothing = band_smoothing(terms)
    omega = -smoothing.exponents[1].imag / smoothing.exponents[0].real
    period = 2 * np.pi / omega
    x = (np.arange(20000) + 0.5) * 4 * period / 20000
    waves = np.exp(1j * omega * np.outer(x, np.arange(1, terms + 1))) - 1
    rng = np.random.default_rng(0)
    for _ in range(50):
        # Bumps about a random centre are the sensible rivals.
        p = np.exp(-1j * omega * np.arange(1, terms + 1) * rng.uniform(0.1, 0.9) * period)
        p *= np.hanning(terms + 2)[1:-1] ** rng.uniform(0.1, 2)
        density = np.exp(-x) * np.abs(waves @ p) ** 2
        density /= density.sum()
        rival = np.sqrt((density @ x**-2.0) / (density @ (1 / x)) ** 2 - 1)
        assert rival > smoothing.spread


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


QUADRATURE = np.array([0.0, 1.0, 1.5, 2.5, 3.0, 6.0])


def test_hats_add_up_to_one_so_a_single_step_is_integrated_exactly():
    start, cut = np.array([0.2, 1.1, 1.5, 2.9]), np.array([0.9, 0.3, 1.0, 0.05])
    hat = average_over_hats(QUADRATURE, *hats(QUADRATURE), start, cut)
    np.testing.assert_allclose(reaches(QUADRATURE) @ (1 - hat.open), start + cut, rtol=1e-12)


def test_averages_over_hats_are_those_of_a_fine_grid():
    start, cut = np.array([0.2, 1.3]), np.array([0.5, 1.9])
    before, after = hats(QUADRATURE)
    hat = average_over_hats(QUADRATURE, before, after, start, cut)
    s = np.linspace(-1, 9, 400001)
    for i, n in np.ndindex(6, 2):
        shape = np.interp(s, [before[i], QUADRATURE[i], after[i]], [0, 1, 0])
        behind = shape * (s > start[n] + cut[n])
        assert hat.open[i, n] == pytest.approx(behind.sum() / shape.sum(), abs=1e-4)
        if hat.open[i, n] > 0:
            mean = behind @ (s - start[n]) / behind.sum()
            assert hat.left[i, n] == pytest.approx(mean, rel=1e-4)


def test_the_slopes_of_averages_over_hats_are_their_differences():
    start, cut = np.array([0.2, 1.3]), np.array([0.5, 1.9])
    hat, more, less = (
        average_over_hats(QUADRATURE, *hats(QUADRATURE), start, cut + move)
        for move in (0, 1e-6, -1e-6)
    )
    by_open = (np.log(more.open[hat.cut]) - np.log(less.open[hat.cut])) / 2e-6
    np.testing.assert_allclose(hat.open_slope, by_open, rtol=1e-6)
    by_left = (more.left[hat.cut] - less.left[hat.cut]) / 2e-6
    np.testing.assert_allclose(hat.left_slope, by_left, rtol=1e-6)


def test_quadrature_is_placed_where_the_distribution_rises_and_stay_there_for_a_plan_nearby():
    def rise(s, at=37.0):
        return np.clip((s - at) / 0.5, 0, 1)

    quadrature = place_quadrature(2.0, rise)
    assert quadrature[0] == 0 and 0 < quadrature[1] <= 2 and quadrature[-1] >= 37.5
    assert np.sum((quadrature >= 36.9) & (quadrature <= 37.6)) >= 10
    assert reaches(quadrature) @ (1 - rise(quadrature)) == pytest.approx(37.25, rel=1e-3)
    np.testing.assert_array_equal(place_quadrature(2.001, lambda s: rise(s, 37.0001)), quadrature)
