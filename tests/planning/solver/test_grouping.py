"""Planning for groups first: the noise and the time of a plan of groups are its members'."""

import numpy as np
import pytest

from fedpace.planning.round_time.distribution import mean_and_gradient
from fedpace.planning.round_time.grouped import grouped_mean_and_gradient
from fedpace.planning.solver import grouping as grouping_module
from fedpace.planning.solver.grouping import expand, grouped_problem
from fedpace.planning.solver.objective import Problem, evaluate, exact_law, relative_rounds
from planning.some_problems import some_clients, some_problem, some_system


def test_a_plan_of_groups_makes_the_noise_of_its_expansion(monkeypatch):
    monkeypatch.setattr(grouping_module, "_MOST_GROUPS", 50)
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
    monkeypatch.setattr(grouping_module, "_MOST_GROUPS", 500)
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


def test_the_law_of_a_band_that_never_idles_merges_the_groups_once_more():
    problem = Problem(some_clients(3000), some_system(3000, allocation="work-conserving"))
    by_group, groups = grouped_problem(problem)
    assert len(by_group.groups.first) <= 500 < len(by_group.clients)
    assert by_group.groups.count.sum() == 3000
    q, k = np.full(len(by_group.clients), 0.03), np.full(len(by_group.clients), 8.0)
    merged = exact_law(by_group)(q, k)[0]
    whole = exact_law(problem)(*expand(problem, groups, q, k))[0]
    assert merged == pytest.approx(whole, rel=3e-3)


def test_where_members_reach_their_limit_the_others_make_up_for_it(monkeypatch):
    monkeypatch.setattr(grouping_module, "_MOST_GROUPS", 30)
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
