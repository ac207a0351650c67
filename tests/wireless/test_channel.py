from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy import integrate, special, stats

from fedpace.core.errors import InputError
from fedpace.core.profile import Clients
from fedpace.wireless.channel import (
    GAIN_FLOOR,
    bandwidth_for_rate,
    bandwidth_slope,
    faded,
    fading_gains,
    mean_faded,
    path_loss_db,
    rate_bps,
    received_snr_hz,
    uplink,
)

SNR = 3.7e6
LIMIT = SNR / np.log(2)


def population(**link):
    count = len(next(iter(link.values())))
    return Clients.from_columns(data_weight=np.ones(count), step_seconds=np.ones(count), **link)


def exact_bandwidth_and_slope(rate, snr):
    """Bisection on b log2(1 + snr/b) = rate in 60 digits; exact for the two doubles given."""
    with localcontext() as context:
        context.prec = 60
        rate, snr, ln2 = Decimal(rate), Decimal(snr), Decimal(2).ln()
        low, high = Decimal("1e-12") * snr, Decimal("1e14") * snr
        while high / low > 1 + Decimal("1e-20"):
            middle = (low * high).sqrt()
            if middle * (1 + snr / middle).ln() / ln2 < rate:
                low = middle
            else:
                high = middle
        x = snr / low
        return float(low), float(ln2 / ((1 + x).ln() - x / (1 + x)))


def test_rate_of_the_textbook_links():
    np.testing.assert_allclose(rate_bps([1e6, 2e6], spectral_efficiency=3.0), [3e6, 6e6])
    np.testing.assert_allclose(rate_bps(1e6, snr_hz=[1e6, 3e6, 15e6]), [1e6, 2e6, 4e6])


def test_shannon_bandwidth_and_slope_agree_with_sixty_digit_arithmetic_up_to_the_limit():
    part = np.concatenate([np.logspace(-6, -0.3, 9), 1 - np.logspace(-6, -0.5, 9), [1 - 1e-9]])
    rate = part * LIMIT
    bandwidth, slope = np.transpose([exact_bandwidth_and_slope(r, SNR) for r in rate])
    np.testing.assert_allclose(bandwidth_for_rate(rate, snr_hz=SNR), bandwidth, rtol=1e-13)
    np.testing.assert_allclose(bandwidth_slope(rate, snr_hz=SNR), slope, rtol=1e-13)


def test_shannon_bandwidth_agrees_with_the_lambert_w_function():
    part = np.logspace(-6, np.log10(0.9), 400)
    y = -special.lambertw(-part * np.exp(-part), -1).real / part
    np.testing.assert_allclose(
        bandwidth_for_rate(part * LIMIT, snr_hz=SNR), SNR / (y - 1), rtol=1e-12
    )


def test_bandwidth_is_the_inverse_of_rate_and_broadcasts():
    bandwidth = np.logspace(2, 9, 50)[:, None]
    snr = np.logspace(4, 8, 7)
    rate = rate_bps(bandwidth, snr_hz=snr)
    # In terms of the rate: near the limit the bandwidth itself is not determined by the double.
    np.testing.assert_allclose(
        rate_bps(bandwidth_for_rate(rate, snr_hz=snr), snr_hz=snr), rate, rtol=1e-14
    )
    constant = rate_bps(bandwidth, spectral_efficiency=snr)
    np.testing.assert_allclose(
        bandwidth_for_rate(constant, spectral_efficiency=snr) + 0 * snr,
        np.broadcast_to(bandwidth, rate.shape),
        rtol=1e-15,
    )


def test_no_bandwidth_reaches_the_shannon_limit():
    rates = np.array([0.0, 0.999 * LIMIT, LIMIT, 2 * LIMIT])
    bandwidth = bandwidth_for_rate(rates, snr_hz=SNR)
    assert bandwidth[0] == 0 and np.isfinite(bandwidth[1])
    assert np.all(np.isinf(bandwidth[2:]))
    assert np.all(np.isinf(bandwidth_slope(rates, snr_hz=SNR)[2:]))
    np.testing.assert_allclose(rate_bps([0.0, np.inf], snr_hz=SNR), [0, LIMIT])


def test_a_few_digits_from_the_limit_the_bandwidth_grows_or_is_infinite():
    for snr in (SNR, 1.1, 7e9):
        rate = snr / np.log(2) * (1 + np.arange(-20, 5) * np.finfo(float).eps / 2)
        bandwidth = bandwidth_for_rate(rate, snr_hz=snr)
        assert np.all(bandwidth[1:] >= bandwidth[:-1])
        assert bandwidth[0] > 1e13 * snr and bandwidth[-1] == np.inf


def test_extreme_rates_warn_of_nothing():
    bandwidth = bandwidth_for_rate([1e-300, 1e-30, 1e300], snr_hz=SNR)
    slope = bandwidth_slope([1e-300, 1e-30, 1e300], snr_hz=SNR)
    assert np.all(bandwidth[:2] >= 0) and np.isinf(bandwidth[2])
    assert np.all(slope[:2] >= 0) and np.isinf(slope[2])


@pytest.mark.parametrize("part", [1e-6, 1e-3, 0.2, 0.55, 0.72, 0.9, 0.999])
def test_slope_is_the_derivative_of_bandwidth(part):
    rate, h = part * LIMIT, 1e-5 * min(part, 1 - part) * LIMIT
    ends = bandwidth_for_rate([rate - h, rate + h], snr_hz=SNR)
    difference = (ends[1] - ends[0]) / (2 * h)
    np.testing.assert_allclose(bandwidth_slope(rate, snr_hz=SNR), difference, rtol=1e-8)


def test_slope_of_a_constant_link_is_the_inverse_efficiency():
    slope = bandwidth_slope(np.ones((3, 1)), spectral_efficiency=[2.0, 4.0])
    np.testing.assert_array_equal(slope, np.broadcast_to([0.5, 0.25], (3, 2)))


@pytest.mark.parametrize("link", [{}, {"spectral_efficiency": 1.0, "snr_hz": 1.0}])
@pytest.mark.parametrize("function", [rate_bps, bandwidth_for_rate, bandwidth_slope])
def test_a_link_is_described_in_exactly_one_way(function, link):
    with pytest.raises(InputError, match="one of them; got (neither|both)"):
        function(1.0, **link)


def test_path_loss_and_link_budget_by_hand():
    np.testing.assert_allclose(path_loss_db([1.0, 0.1]), [128.1, 90.5])
    # 23 dBm + 174 dBm/Hz - 128.1 dB - 8.9 dB = 60 dB above one hertz
    np.testing.assert_allclose(received_snr_hz(1.0, 8.9), 1e6)


def test_gains_are_the_same_whoever_joins_and_new_every_round():
    np.testing.assert_array_equal(fading_gains(3, 7, 50), fading_gains(3, 7, 50))
    assert not np.any(fading_gains(3, 7, 50) == fading_gains(3, 8, 50))


def test_gains_are_exponential_above_the_floor():
    gains = fading_gains(0, 0, 20_000)
    assert gains.min() == GAIN_FLOOR
    above = gains[gains > GAIN_FLOOR] - GAIN_FLOOR  # memoryless
    assert stats.kstest(above, "expon").pvalue > 0.01
    assert abs(np.mean(gains > GAIN_FLOOR) - np.exp(-GAIN_FLOOR)) < 0.004


def test_a_gain_scales_the_signal_of_either_kind_of_link():
    efficiency = np.array([0.2, 1.0, 6.0])
    gains = np.array([0.01, 0.5, 3.0])
    one = faded(population(spectral_efficiency=efficiency), gains)
    expected = np.log2(1 + (2**efficiency - 1) * gains)
    np.testing.assert_allclose(one.spectral_efficiency, expected, rtol=1e-13)
    share = 1e6  # the same links by Shannon's formula, at the share where they agree
    other = faded(population(snr_hz=share * (2**efficiency - 1)), gains)
    np.testing.assert_allclose(rate_bps(share, **uplink(other)), share * expected, rtol=1e-13)


def test_a_gain_of_one_changes_nothing_and_large_efficiencies_do_not_overflow():
    clients = population(spectral_efficiency=[0.3, 2.0, 5000.0])
    np.testing.assert_array_equal(uplink(faded(clients, 1.0))["spectral_efficiency"],
                                  clients.spectral_efficiency)  # fmt: skip
    np.testing.assert_allclose(faded(clients, 0.5).spectral_efficiency[2], 4999.0)


@pytest.mark.parametrize("efficiency", [0.01, 0.5, 2.0, 8.0])
def test_mean_faded_has_the_mean_demand_by_numerical_integration(efficiency):
    def demand(gain):
        return 1 / np.log2(1 + (2**efficiency - 1) * gain)

    pieces = [GAIN_FLOOR, 0.1, 1, 10, 60]
    mean = (1 - np.exp(-GAIN_FLOOR)) * demand(GAIN_FLOOR) + sum(
        integrate.quad(lambda g: np.exp(-g) * demand(g), low, high, epsrel=1e-12)[0]
        for low, high in zip(pieces, pieces[1:])
    )
    link = mean_faded(population(spectral_efficiency=[efficiency])).spectral_efficiency
    np.testing.assert_allclose(1 / link, mean, rtol=1e-11)


def test_mean_faded_has_the_mean_upload_time_over_the_rounds_of_a_run():
    clients = population(spectral_efficiency=[1.5])
    times = [1 / faded(clients, fading_gains(0, t, 1)).spectral_efficiency[0] for t in range(5000)]
    standard_error = np.std(times) / np.sqrt(len(times))
    assert abs(np.mean(times) - 1 / mean_faded(clients).spectral_efficiency[0]) < 3 * standard_error


def test_mean_faded_matches_a_shannon_link_at_its_share():
    share, efficiency = 2e5, np.array([0.5, 4.0])
    shannon = mean_faded(population(snr_hz=share * (2**efficiency - 1)), share)
    constant = mean_faded(population(spectral_efficiency=efficiency))
    np.testing.assert_allclose(
        rate_bps(share, **uplink(shannon)), share * constant.spectral_efficiency, rtol=1e-12
    )


def test_mean_faded_of_a_shannon_link_asks_for_the_share():
    with pytest.raises(InputError, match="share_hz is None; give the bandwidth"):
        mean_faded(population(snr_hz=[1e6]))
