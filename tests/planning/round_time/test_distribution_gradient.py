"""Derivatives of the mean and of a quantile: of the computed number, and of the true one."""

from dataclasses import replace

import numpy as np
import pytest

from fedpace.core.plan import Decision
from fedpace.core.profile import Clients, System
from fedpace.planning.round_time.distribution import (
    choose_quadrature,
    enumerate_round_seconds,
    mean_and_gradient,
    mean_field_seconds,
    quantile_and_gradient,
)

SYSTEM = System(
    bandwidth_hz=1e6, lora_rank=16, bits_per_rank=1e5, fixed_bits=2e5, allocation="equal-finish"
)
KINDS = {
    "constant": {},
    "Shannon": {"shannon": True},
    "limits": {"limits": True},
    "Shannon with limits": {"shannon": True, "limits": True},
    "absences": {"absences": True},
}


def population(count, *, shannon=False, limits=False, absences=False, spread=10.0):
    rng = np.random.default_rng(count)
    link = "snr_hz" if shannon else "spectral_efficiency"
    columns = {
        "data_weight": rng.lognormal(0, 1, count),
        "step_seconds": np.exp(rng.uniform(0, np.log(spread), count)) / 5,
        "step_seconds_per_rank": rng.uniform(0, 0.02, count),
        link: (3e6 if shannon else 1.0) * np.exp(rng.uniform(0, np.log(spread), count)),
        **({"max_bandwidth_hz": 1e6 * np.exp(rng.uniform(-2, 0.5, count))} if limits else {}),
        **({"availability": rng.uniform(0.5, 1, count)} if absences else {}),
    }
    q, rank = np.exp(rng.uniform(-3, -0.01, count)), rng.uniform(2, 16, count)
    return Clients.from_columns(**columns), q, rank


def differences(value, point, step=1e-5, entries=8):
    """Central differences of value(point) in its first entries, relative steps."""
    found = []
    for n in range(min(entries, len(point))):
        move = step * point[n] * np.eye(len(point))[n]
        found.append((value(point + move) - value(point - move)) / (2 * step * point[n]))
    return np.array(found)


def assert_gradient(law, q, rank, tolerance):
    """law(q, rank) -> (value, d_q, d_rank)."""
    _, d_q, d_rank = law(q, rank)
    by_q = differences(lambda at: law(at, rank)[0], q)
    by_rank = differences(lambda at: law(q, at)[0], rank)
    np.testing.assert_allclose(d_q[: len(by_q)], by_q, atol=tolerance * abs(d_q).max())
    np.testing.assert_allclose(d_rank[: len(by_rank)], by_rank, atol=tolerance * abs(d_rank).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 20, pytest.param(150, marks=pytest.mark.slow)])
def test_the_gradient_of_the_mean_is_that_of_the_computed_number(count, kind):
    clients, q, rank = population(count, **KINDS[kind])
    quadrature = choose_quadrature(q, rank, clients, SYSTEM)
    for given in (quadrature, None):
        # A fresh choice of nodes is the same one at these points, so both hold.
        assert_gradient(
            lambda q, k, given=given: mean_and_gradient(q, k, clients, SYSTEM, quadrature=given),
            q, rank, 1e-5,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "p"),
    [(kind, 0.95) for kind in KINDS] + [("constant", 0.4), ("Shannon with limits", 0.4)],
)
def test_the_gradient_of_a_quantile_is_that_of_the_computed_number(p, kind):
    clients, q, rank = population(20, **KINDS[kind])
    assert_gradient(lambda q, k: quantile_and_gradient(p, q, k, clients, SYSTEM), q, rank, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_the_mean_is_close_to_the_exact_one(kind):
    clients, q, rank = population(8, **KINDS[kind])
    rank = np.round(rank)
    _, d_q, d_rank = mean_and_gradient(q, rank, clients, SYSTEM)

    def exact(q, k):
        plan = Decision(q.copy(), k.copy())
        seconds, chance = enumerate_round_seconds(plan, clients, SYSTEM)
        return seconds @ chance

    by_q = differences(lambda at: exact(at, rank), q)
    by_rank = differences(lambda at: exact(q, at), rank)
    np.testing.assert_allclose(d_q, by_q, rtol=0.02, atol=5e-3 * abs(by_q).max())
    np.testing.assert_allclose(d_rank, by_rank, rtol=0.05, atol=0.05 * abs(by_rank).max())


def test_certain_participation_has_a_gradient_from_below():
    clients, q, rank = population(15)
    q[:5] = 1
    quadrature = choose_quadrature(q, rank, clients, SYSTEM)
    mean, d_q, _ = mean_and_gradient(q, rank, clients, SYSTEM, quadrature=quadrature)
    for n in range(5):
        less = q - 1e-6 * np.eye(15)[n]
        below, _, _ = mean_and_gradient(less, rank, clients, SYSTEM, quadrature=quadrature)
        assert d_q[n] == pytest.approx((mean - below) / 1e-6, rel=1e-4, abs=1e-6)


def test_more_participation_and_more_rank_never_shorten_a_round():
    clients, q, rank = population(60, shannon=True, limits=True)
    _, d_q, d_rank = mean_and_gradient(q, rank, clients, SYSTEM)
    assert np.all(d_q >= -1e-9)
    assert np.all(d_rank >= -1e-3 * d_rank.max())


def test_kept_quadrature_serves_a_plan_nearby():
    clients, q, rank = population(50)
    quadrature = choose_quadrature(q, rank, clients, SYSTEM)
    moved = np.minimum(1, 1.1 * q), 0.9 * rank
    kept = mean_and_gradient(*moved, clients, SYSTEM, quadrature=quadrature)
    fresh = mean_and_gradient(*moved, clients, SYSTEM)
    assert kept[0] == pytest.approx(fresh[0], rel=3e-3)
    np.testing.assert_allclose(kept[1], fresh[1], atol=0.1 * fresh[1].max())


def test_where_most_rounds_are_empty_the_median_is_the_overhead_and_does_not_move():
    clients, _, rank = population(10)
    seconds, d_q, d_rank = quantile_and_gradient(0.5, np.full(10, 0.01), rank, clients, SYSTEM)
    assert seconds == SYSTEM.overhead_seconds
    assert not d_q.any() and not d_rank.any()


@pytest.mark.slow
@pytest.mark.parametrize("participants", [2, 300])
def test_quadrature_placed_by_a_part_of_a_large_population_serve_all_of_it(participants):
    count, slow = 60_000, replace(SYSTEM, bits_per_rank=2e6, fixed_bits=0.0)
    clients, q, rank = population(count, spread=3.0)
    q = participants / count * q / q.mean()
    mean, d_q, _ = mean_and_gradient(q, rank, clients, slow)
    fine = np.append(0.0, np.geomspace(0.5, 3e4, 120))
    same, same_q, _ = mean_and_gradient(q, rank, clients, slow, quadrature=fine)
    assert mean == pytest.approx(same, rel=5e-3)
    np.testing.assert_allclose(d_q, same_q, atol=0.03 * same_q.max())


def test_a_hundred_thousand_clients_are_one_law():
    """Blocks of clients, and nodes placed by a sample: the mean field is exact in this limit."""
    count = 100_000
    clients, q, rank = population(count, spread=3.0)
    q = 0.1 * q / q.mean()
    mean, d_q, d_rank = mean_and_gradient(q, rank, clients, SYSTEM)
    field = mean_field_seconds(q, rank, clients, SYSTEM)
    assert mean == pytest.approx(field, rel=2e-3)
    direction = np.random.default_rng(0).random(count)
    step = 1e-4

    def along(side):
        moved_q, moved_rank = (
            q * (1 + side * step * direction),
            rank * (1 + side * step * direction),
        )
        return mean_field_seconds(moved_q, moved_rank, clients, SYSTEM)

    slope = (along(1) - along(-1)) / (2 * step)
    assert d_q @ (q * direction) + d_rank @ (rank * direction) == pytest.approx(slope, rel=0.01)


def test_the_gradient_knows_what_the_absence_of_a_certain_client_would_save():
    """The slowest always joins: the distribution shows nothing of the time without it."""
    pace = np.append(np.full(19, 1.0), 20.0)
    same = np.ones(20)
    clients = Clients.from_columns(
        data_weight=same, step_seconds=pace, spectral_efficiency=100 * same
    )
    q = np.append(np.full(19, 0.9), 1.0)
    _, d_q, _ = mean_and_gradient(q, 8 * same, clients, SYSTEM)
    assert d_q[-1] == pytest.approx(100 - 5, rel=0.01)
