"""The share of the band that a client needs: rates by hand, slopes by differences."""

import numpy as np
import pytest
from scipy.stats import lognorm

from fedpace.planning.round_time.band_share import band_share, own_limit_acceptance

BITS = np.array([1e6, 2e6, 4e5])
LINKS = {
    "spectral_efficiency": np.array([2.0, 0.5, 4.0]),
    "snr_hz": np.array([3e6, 1e7, 2e6]),
}
BAND = 2e6


def rate(name, share):
    """Bit/s of each client on that share of the band, by the formula of its link."""
    if name == "spectral_efficiency":
        return LINKS[name] * share * BAND
    return share * BAND * np.log2(1 + LINKS[name] / (share * BAND))


@pytest.mark.parametrize("name", LINKS)
def test_the_share_sends_the_bits_in_the_time_left(name):
    left = np.array([[0.9, 3.0, 0.4], [20.0, 50.0, 7.0]])
    share, _ = band_share(BITS, left, {name: LINKS[name]}, BAND)
    np.testing.assert_allclose(rate(name, share) * left, np.tile(BITS, (2, 1)), rtol=1e-9)


@pytest.mark.parametrize("name", LINKS)
def test_its_fall_is_the_difference_in_time(name):
    left, step = np.array([[0.9, 3.0, 0.4]]), 1e-5
    _, fall = band_share(BITS, left, {name: LINKS[name]}, BAND)
    sooner, later = (
        band_share(BITS, left + move, {name: LINKS[name]}, BAND)[0] for move in (-step, step)
    )
    np.testing.assert_allclose(fall, (sooner - later) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("name", LINKS)
def test_before_it_sends_and_where_its_link_is_too_weak_a_client_needs_sixty_bands(name):
    left = np.array([[-1.0, 0.0, 1e-6]])
    share, fall = band_share(BITS, left, {name: LINKS[name]}, BAND)
    assert share.tolist() == [[60.0, 60.0, 60.0]]
    assert fall.tolist() == [[0.0, 0.0, 0.0]]


def test_a_limit_of_ones_own_is_log_normal_with_its_mean_time_kept():
    load, limit, spread = np.array([[0.1, 0.3, 0.2]]), np.array([0.12, 0.25, 1.0]), 0.2
    accept, slope = own_limit_acceptance(load, limit, spread)
    # xi with ln xi normal and E[1/xi] = 1 has the mean spread^2 / 2 of its logarithm.
    xi = lognorm(spread, scale=np.exp(spread**2 / 2))
    assert xi.expect(lambda x: 1 / x) == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(accept[0, :2], xi.sf(load[0, :2] / limit[:2]), rtol=1e-9)
    assert accept[0, 2] == 1 and slope[0, 2] == 0
    more, less = (own_limit_acceptance(load + h, limit, spread)[0] for h in (1e-6, -1e-6))
    np.testing.assert_allclose(slope[0, :2], (np.log(more) - np.log(less))[0, :2] / 2e-6, rtol=1e-6)
