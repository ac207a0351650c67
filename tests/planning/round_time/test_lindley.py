"""Lindley's chain against lists of all participants, closed forms and differences."""

from itertools import product

import numpy as np
import pytest

from fedpace.planning.round_time.lindley import LindleyChain, _Grid


def clients(count, seed=0, upload=1.0):
    """Chances, starts and uploads of N clients."""
    rng = np.random.default_rng(seed)
    return (
        rng.uniform(0.05, 1.0, count), rng.lognormal(0, 1, count),
        upload * rng.lognormal(0, 1, count),
    )  # fmt: skip


def listed(p, tau, u):
    """T of every set of participants, by the formula of the makespan, and its probability."""
    times, chances = [], []
    for joined in product([False, True], repeat=len(p)):
        here = np.array(joined)
        chances.append(np.where(here, p, 1 - p).prod())
        ends = [t + u[here & (tau >= t)].sum() for t in tau[here]]
        times.append(max(ends, default=0.0))
    return np.array(times), np.array(chances)


@pytest.mark.parametrize("upload", [0.01, 0.3, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_mean_and_distribution_are_those_of_all_sets_of_participants(seed, upload):
    p, tau, u = clients(9, seed, upload)
    times, chances = listed(p, tau, u)
    chain = LindleyChain.of(p, tau, u)
    assert chain.mean().value == pytest.approx(times @ chances, rel=2e-3)
    seconds, value = chain.distribution()
    order = np.argsort(times)
    below = np.cumsum(chances[order])
    for level in (0.3, 0.6, 0.95):
        near = [times[order[np.searchsorted(below, level + d)]] for d in (-0.01, 0.01)]
        for found in (float(np.interp(level, value, seconds)), chain.quantile(level).value):
            assert near[0] * 0.985 <= found <= near[1] * 1.015


def test_one_client_alone_and_two_by_hand():
    one = LindleyChain.of(np.array([0.25]), np.array([3.0]), np.array([2.0]))
    assert one.mean().value == pytest.approx(0.25 * 5)
    # Second alone: 1 + 4 = 5; first alone: 2; both: 1 + 1 (from 1 to 2), then 4 more: 6.
    two = LindleyChain.of(np.array([0.5, 0.5]), np.array([1.0, 1.0]), np.array([1.0, 4.0]))
    assert two.mean().value == pytest.approx((2 + 5 + 6) / 4)


def test_where_everyone_joins_it_is_the_makespan():
    _, tau, u = clients(200, 1, 0.02)
    makespan = max(t + u[tau >= t].sum() for t in tau)
    chain = LindleyChain.of(np.ones(200), tau, u)
    assert chain.mean().value == pytest.approx(makespan, rel=1e-4)
    assert chain.quantile(0.95).value == pytest.approx(makespan, rel=0.01)


def test_where_all_start_together_the_mean_is_start_and_load():
    p, _, u = clients(50, 2)
    expected = 2.0 * (1 - np.prod(1 - p)) + p @ u
    assert LindleyChain.of(p, np.full(50, 2.0), u).mean().value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [100, 1000])
def test_many_clients_take_what_drawn_rounds_take(count):
    p, tau, u = clients(count, 3, 3.0 / count)
    order = np.argsort(tau)
    rng, busy = np.random.default_rng(0), np.zeros(20_000)
    for n in order:
        joined = rng.random(len(busy)) < p[n]
        busy = np.where(joined, np.maximum(busy, tau[n]) + u[n], busy)
    chain = LindleyChain.of(p, tau, u)
    assert chain.mean().value == pytest.approx(busy.mean(), rel=0.005)
    assert chain.quantile(0.95).value == pytest.approx(np.quantile(busy, 0.95), rel=0.015)


@pytest.mark.parametrize("seed", range(3))
def test_derivatives_are_those_of_the_number_that_is_computed(seed):
    given = clients(20, seed, 0.2)
    width = np.ptp(given[1])

    def at(columns):
        grid = _Grid(float(given[1].min()), width / 300, 301)
        return LindleyChain.of(*columns)._slopes(grid, grid.seconds(), 0.0, 1.0)

    made = at(given)
    for which, slope in enumerate((made.d_probability, made.d_start, made.d_solo)):
        for n in (2, 7, 13):
            values = []
            for side in (1e-7, -1e-7):
                moved = [column.copy() for column in given]
                moved[which][n] += side
                values.append(at(moved).value)
            assert slope[n] == pytest.approx((values[0] - values[1]) / 2e-7, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_starts_and_uploads_with_several_values_are_listed_too(seed):
    """Three values each; every set of participants with every choice of values."""
    p, tau, u = clients(4, seed, 0.6)
    rng = np.random.default_rng(seed)
    weight, times = np.array([0.1, 0.3, 0.6]), np.array([4.0, 1.2, 0.4])
    start, solo = tau[:, None] + 0.1 * rng.random((4, 1)) * times, u[:, None] * times
    mean = 0.0
    for choice in product(range(3), repeat=4):
        at = np.arange(4), np.array(choice)
        found, chances = listed(p, start[at], solo[at])
        mean += weight[list(choice)].prod() * float(found @ chances)
    made = LindleyChain.of(p, start, solo, weight).mean()
    assert made.value == pytest.approx(mean, rel=0.01)
    step = 1e-5
    for which in range(2):
        columns = [start.copy(), solo.copy()]
        columns[which] *= 1 + step
        more = LindleyChain.of(p, *columns, weight).mean().value
        slope = (made.d_start, made.d_solo)[which]
        expected = float(np.sum(slope * (start, solo)[which]))
        assert (more - made.value) / step == pytest.approx(expected, rel=0.03)


def test_one_client_with_two_uploads_by_hand():
    chain = LindleyChain.of(
        np.array([0.5]), np.full((1, 2), 3.0), np.array([[2.0, 7.0]]), np.array([0.25, 0.75])
    )
    assert chain.mean().value == pytest.approx(0.5 * (3 + 0.25 * 2 + 0.75 * 7))
    assert chain.quantile(0.95).value == pytest.approx(10, rel=0.011)


def test_derivatives_of_a_quantile_point_where_it_goes():
    p, tau, u = clients(60, 5, 0.05)
    made = LindleyChain.of(p, tau, u).quantile(0.9)
    step = 1e-4
    for direction in (np.ones(60), np.random.default_rng(0).random(60)):
        later = LindleyChain.of(p, tau, u * (1 + step * direction)).quantile(0.9).value
        before = LindleyChain.of(p, tau, u * (1 - step * direction)).quantile(0.9).value
        expected = (later - before) / (2 * step)
        assert made.d_solo[:, 0] @ (u * direction) == pytest.approx(expected, rel=0.05)


def test_the_order_of_the_clients_does_not_matter():
    p, tau, u = clients(30, 6)
    back = slice(None, None, -1)
    one, two = (
        LindleyChain.of(p, tau, u).mean(),
        LindleyChain.of(p[back], tau[back], u[back]).mean(),
    )
    assert one.value == pytest.approx(two.value, rel=1e-12)
    np.testing.assert_allclose(one.d_start, two.d_start[back], atol=1e-12)


def test_where_most_rounds_are_empty_a_quantile_is_0():
    chain = LindleyChain.of(np.array([0.01, 0.02]), np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    made = chain.quantile(0.9)
    assert made.value == 0 and not made.d_probability.any()
