"""The round time of a large population, by groups of similar clients."""

import numpy as np
import pytest

from fedpace.core.plan import Decision
from fedpace.core.profile import Clients
from fedpace.planning.round_time.distribution import (
    mean_and_gradient,
    quantile_and_gradient,
    simulate_round_seconds,
)
from fedpace.planning.round_time.grouped import (
    group_clients,
    grouped_mean_and_gradient,
    grouped_quadrature,
    grouped_quantile_and_gradient,
    grouped_round_time,
)
from fedpace.planning.round_time.upper_bound import solo_seconds
from planning.some_problems import some_clients, some_system


def shannon(clients):
    columns = dict(clients.columns())
    columns["snr_hz"] = 3e6 * columns.pop("spectral_efficiency")
    return Clients.from_columns(**columns)


@pytest.mark.parametrize("link", ["constant", "shannon"])
def test_with_one_client_in_each_group_it_is_the_exact_law(link):
    clients, system = some_clients(40, availability=np.linspace(0.5, 1, 40)), some_system(40)
    clients = shannon(clients) if link == "shannon" else clients
    groups = group_clients(clients, system)
    assert len(groups.first) == 40
    q, k = np.linspace(0.05, 0.98, 40), np.linspace(1, 8, 40)
    ours = grouped_mean_and_gradient(groups, q, k)
    for mine, exact in zip(ours, mean_and_gradient(q, k, clients, system), strict=True):
        np.testing.assert_allclose(mine, exact, rtol=1e-4, atol=1e-9)
    ours = grouped_quantile_and_gradient(groups, 0.9, q, k)
    exact = quantile_and_gradient(0.9, q, k, clients, system)
    for mine, theirs in zip(ours, exact, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("quantile", [None, 0.8])
def test_derivatives_for_members_of_groups_are_exact(quantile):
    clients, system = some_clients(40, availability=np.linspace(0.5, 1, 40)), some_system(40)
    groups = group_clients(clients, system, groups=12)
    assert len(groups.first) <= 12
    q, k = np.linspace(0.05, 0.9, 40), np.linspace(1, 8, 40)
    quadrature = grouped_quadrature(groups, q, k)

    def law(q, k):
        if quantile is None:
            return grouped_mean_and_gradient(groups, q, k, quadrature=quadrature)
        return grouped_quantile_and_gradient(groups, quantile, q, k)

    _, by_q, by_k = law(q, k)
    for n in range(0, 40, 7):
        step = np.zeros(40)
        step[n] = 1e-5
        slope = (law(q + step, k)[0] - law(q - step, k)[0]) / 2e-5
        assert slope == pytest.approx(by_q[n], rel=1e-3, abs=1e-4)
        slope = (law(q, k + step)[0] - law(q, k - step)[0]) / 2e-5
        assert slope == pytest.approx(by_k[n], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("cohort", [30, 3000])
def test_groups_of_a_large_population_take_as_long_as_its_members(cohort):
    count = 15_000
    clients = some_clients(count)
    system = some_system(count, bandwidth_hz=2e6 * cohort)
    rng = np.random.default_rng(1)
    q = np.minimum(1.0, cohort / count * rng.lognormal(0, 1, count))
    k = rng.integers(2, 9, count)
    groups = group_clients(clients, system, groups=3000)
    assert len(groups.first) < count / 4
    law = grouped_round_time(groups, q, k.astype(float))
    rounds = simulate_round_seconds(Decision(q, k), clients, system, 400, 0)
    error = rounds.std() / np.sqrt(len(rounds))
    assert law.mean == pytest.approx(rounds.mean(), abs=3 * error + 0.005 * law.mean)
    assert law.quantile(0.5) == pytest.approx(np.median(rounds), rel=0.1)
    mean = grouped_mean_and_gradient(groups, q, k.astype(float))[0]
    assert mean == pytest.approx(law.mean, rel=0.01)


def test_the_rank_of_a_small_memory_is_not_shared_with_others():
    clients = some_clients(2000, spread=0.01, max_rank=np.where(np.arange(2000) % 2, 2, 8))
    groups = group_clients(clients, some_system(2000), groups=20)
    for group in np.split(groups.order, groups.first[1:]):
        assert len(np.unique(clients.max_rank[group])) == 1


def test_groups_are_finer_among_the_slowest():
    clients, system = some_clients(4000), some_system(4000)
    groups = group_clients(clients, system, groups=300)
    alone = solo_seconds(clients, system, np.full(4000, 8.0))
    size = np.diff(np.append(groups.first, 4000))
    slow = np.add.reduceat((alone > np.quantile(alone, 0.99))[groups.order], groups.first) > 0
    assert size[slow].max() < size.max() / 4
    assert np.sum(slow) > 0.03 * len(size)
