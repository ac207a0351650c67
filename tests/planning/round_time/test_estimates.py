"""The two classical stand-ins for the mean round time, against listed rounds and by hand."""

import numpy as np
import pytest

from fedpace.planning.round_time.estimates import mean_field_seconds, upper_bound_seconds
from fedpace.planning.round_time.simulation import enumerate_round_seconds
from planning.round_time.test_simulation import KINDS, SYSTEM, planned, population, together


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_the_upper_bound_is_above_the_mean(kind, seed):
    clients = population(9, seed=seed, **kind)
    q = np.random.default_rng(seed).uniform(0.02, 1, 9)
    seconds, chance = enumerate_round_seconds(planned(clients, q), clients, SYSTEM)
    assert upper_bound_seconds(q, np.full(9, 8), clients, SYSTEM) >= seconds @ chance


def test_the_upper_bound_is_exact_for_one_client_and_for_equal_starts():
    clients = population(1, limits=True)
    seconds, chance = enumerate_round_seconds(planned(clients, 0.4), clients, SYSTEM)
    assert upper_bound_seconds([0.4], [8], clients, SYSTEM) == pytest.approx(seconds @ chance)
    clients = population(8, step_seconds=np.ones(8))
    q = np.linspace(0.1, 0.9, 8)
    seconds, chance = enumerate_round_seconds(planned(clients, q), clients, SYSTEM)
    assert upper_bound_seconds(q, np.full(8, 8), clients, SYSTEM) == pytest.approx(seconds @ chance)


def test_the_mean_field_of_equal_clients_is_the_mean_number_of_uploads():
    same = np.ones(50)
    clients = population(50, step_seconds=same, spectral_efficiency=same)
    assert mean_field_seconds(0.2 * same, 8 * same, clients, SYSTEM) == pytest.approx(0.3 + 5 + 8)


def test_the_mean_field_waits_for_the_slowest_however_rare():
    pace = np.ones(20)
    pace[0] = 100
    clients = population(20, step_seconds=pace)
    q = np.full(20, 0.5)
    q[0] = 1e-6
    assert mean_field_seconds(q, np.full(20, 8), clients, SYSTEM) >= 500.3


def test_the_mean_field_is_the_time_of_full_participation():
    clients = population(40, shannon=True, limits=True)
    expected = together(clients, np.arange(40))
    everyone = np.ones(40)
    assert mean_field_seconds(everyone, 8 * everyone, clients, SYSTEM) == pytest.approx(expected)
