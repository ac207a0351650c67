"""The spread of demands over fading: means, variances by integration, and the links themselves."""

import numpy as np
import pytest
from scipy.integrate import quad

from fedpace.core.profile import Clients
from fedpace.wireless.channel import GAIN_FLOOR, faded, fading_gains, mean_faded
from fedpace.wireless.fading import demand_values, drawn_demands, typical_share_hz

EFFICIENCY = np.array([0.1523, 0.5, 1.0, 2.3, 5.5547])


def clients(efficiency=EFFICIENCY):
    ones = np.ones(len(efficiency))
    return Clients.from_columns(data_weight=ones, step_seconds=ones, spectral_efficiency=efficiency)


def test_demands_at_gains_are_those_of_the_faded_links_over_their_mean():
    mean = mean_faded(clients()).spectral_efficiency
    gains = np.maximum(np.random.default_rng(0).exponential(size=(50, 5)), GAIN_FLOOR)
    for row, found in zip(gains, drawn_demands(mean, gains), strict=True):
        expected = mean / faded(clients(), row).spectral_efficiency
        np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("count", [2, 5, 12, 24])
def test_values_have_mean_1_and_chances_sum_to_1(count):
    values, chance = demand_values(mean_faded(clients()).spectral_efficiency, count)
    assert values.shape == (5, count)
    assert chance.sum() == pytest.approx(1)
    np.testing.assert_allclose(values @ chance, 1)
    assert np.all(np.diff(values, axis=1) < 0)


def test_the_first_value_is_the_gain_at_its_floor():
    mean = mean_faded(clients()).spectral_efficiency
    values, chance = demand_values(mean, 5)
    assert chance[0] == pytest.approx(1 - np.exp(-GAIN_FLOOR))
    np.testing.assert_allclose(values[:, 0], drawn_demands(mean, np.full(5, 0.01)), rtol=1e-3)


@pytest.mark.parametrize("efficiency", EFFICIENCY)
def test_the_variance_is_that_of_the_law_by_integration(efficiency):
    mean = mean_faded(clients([efficiency])).spectral_efficiency

    def squared(gain):
        return (mean[0] / np.log2(1 + (2**efficiency - 1) * gain)) ** 2

    second = squared(GAIN_FLOOR) * (1 - np.exp(-GAIN_FLOOR)) + quad(
        lambda x: squared(np.exp(x)) * np.exp(x - np.exp(x)), np.log(GAIN_FLOOR), np.log(40)
    )[0]  # fmt: skip
    for count, share in ((5, 0.94), (24, 0.995)):
        values, chance = demand_values(mean, count)
        found = float(values[0] ** 2 @ chance)
        assert share * second < found <= second * (1 + 1e-6)


def test_the_law_is_that_of_the_clocks_gains():
    mean = mean_faded(clients()).spectral_efficiency
    drawn = np.array([drawn_demands(mean, fading_gains(3, t, 5)) for t in range(4000)])
    values, chance = demand_values(mean, 24)
    assert np.all(np.abs(drawn.mean(axis=0) - 1) < 4 * drawn.std(axis=0) / np.sqrt(4000))
    for n in range(5):
        for level in (0.5, 0.9):
            below = float(chance[values[n] <= np.quantile(drawn[:, n], level)].sum())
            assert abs(below - level) < 0.13  # a value stands for a part of the law


def test_a_fifth_of_the_clients_share_the_band():
    assert typical_share_hz(1e6, 50) == 1e5
    assert typical_share_hz(1e6, 3) == 1e6
