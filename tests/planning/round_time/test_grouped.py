"""The round time of a large population, and planning for groups first."""

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
from fedpace.planning.solver import grouping as grouping_module
from fedpace.planning.solver.grouping import expand, grouped_problem
from fedpace.planning.solver.objective import evaluate, relative_rounds
from planning.some_problems import some_clients, some_problem, some_system


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


def test_a_plan_of_groups_makes_the_noise_of_its_expansion(monkeypatch):
    monkeypatch.setattr(grouping_module, "_GROUPS", 50)
    problem = some_problem(
        400, spread=0.5, q_min=1e-9, columns={"availability": np.linspace(0.2, 1, 400)}
    )
    by_group, groups = grouped_problem(problem)
    assert len(by_group.clients) <= 50
    q = np.linspace(0.002, 0.02, len(by_group.clients))
    k = np.arange(len(q)) % 8 + 1
    members_q, members_k = expand(problem, groups, q, k.astype(float))
    assert np.all((members_q > problem.q_min) & (members_q < 1))
    total = relative_rounds(members_q, members_k, problem.clients, problem.system)
    grouped = relative_rounds(q, k.astype(float), by_group.clients, by_group.system)
    # Both are multiples of their own full participation.
    scale = (1 + by_group.system.noise_ratio) / (1 + problem.system.noise_ratio)
    assert grouped * scale == pytest.approx(total, rel=1e-9)


def test_a_population_of_groups_takes_as_long_as_the_whole(monkeypatch):
    monkeypatch.setattr(grouping_module, "_GROUPS", 500)
    problem = some_problem(3000)
    by_group, groups = grouped_problem(problem)
    q = np.full(len(by_group.clients), 0.02)
    k = np.full(len(q), 5)
    members_q, members_k = expand(problem, groups, q, k.astype(float))
    whole = mean_and_gradient(members_q, members_k, problem.clients, problem.system)[0]
    few = grouped_mean_and_gradient(by_group.groups, q, k.astype(float))[0]
    assert few == pytest.approx(whole, rel=0.02)
    point = evaluate(
        by_group, lambda q, k: grouped_mean_and_gradient(by_group.groups, q, k), q, k.astype(float)
    )
    assert point.seconds == few


def test_the_rank_of_a_small_memory_is_not_shared_with_others():
    clients = some_clients(2000, spread=0.01, max_rank=np.where(np.arange(2000) % 2, 2, 8))
    groups = group_clients(clients, some_system(2000), groups=20)
    for group in np.split(groups.order, groups.first[1:]):
        assert len(np.unique(clients.max_rank[group])) == 1


def test_where_members_reach_their_limit_the_others_make_up_for_it(monkeypatch):
    monkeypatch.setattr(grouping_module, "_GROUPS", 30)
    problem = some_problem(400)
    by_group, groups = grouped_problem(problem)
    size = np.diff(np.append(groups.first, 400))
    q = np.linspace(0.3, 1, len(size))
    members, _ = expand(problem, groups, q, np.full(len(size), 8.0))
    assert np.sum(members == 1) > np.sum(size[q == 1])
    mean = np.add.reduceat(members[groups.order], groups.first) / size
    np.testing.assert_allclose(mean, q, rtol=1e-6)
    share = problem.clients.data_weight**2 * problem.clients.update_second_moment
    for group in np.split(np.arange(400), groups.first[1:]):
        who = groups.order[group]
        free = who[members[who] < 1]
        assert len(free) < 2 or np.ptp(np.log(members[free] / np.sqrt(share[free]))) < 1e-9


def test_groups_are_finer_among_the_slowest():
    clients, system = some_clients(4000), some_system(4000)
    groups = group_clients(clients, system, groups=300)
    alone = solo_seconds(clients, system, np.full(4000, 8.0))
    size = np.diff(np.append(groups.first, 4000))
    slow = np.add.reduceat((alone > np.quantile(alone, 0.99))[groups.order], groups.first) > 0
    assert size[slow].max() < size.max() / 4
    assert np.sum(slow) > 0.03 * len(size)
