"""The smoothing of the band: a law of least spread."""

import numpy as np
import pytest

from fedpace.planning.round_time.band_smoothing import band_smoothing

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
