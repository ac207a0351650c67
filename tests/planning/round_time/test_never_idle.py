"""The law of a band that never idles, limits and Shannon links too, against lists and draws."""

from dataclasses import replace

import numpy as np
import pytest

from fedpace.core.plan import Decision
from fedpace.core.profile import Clients, System
from fedpace.planning.round_time.distribution import (
    mean_and_gradient,
    quantile_and_gradient,
    round_time,
    simulate_round_seconds,
)
from fedpace.planning.round_time.grouped import (
    group_clients,
    grouped_mean_and_gradient,
    grouped_quantile_and_gradient,
    grouped_round_time,
)
from fedpace.planning.round_time.law import RoundLaw
from fedpace.planning.round_time.never_idle import NeverIdle

SYSTEM = System(1e6, 16, bits_per_rank=1e5, overhead_seconds=0.3, allocation="work-conserving")


def population(count, seed=0, kind="spectral_efficiency", limits=False):
    rng = np.random.default_rng(seed)
    columns = {
        "data_weight": rng.lognormal(0, 1, count),
        "step_seconds": rng.lognormal(-1, 1, count),
        "step_seconds_per_rank": rng.uniform(0, 0.01, count),
        "availability": rng.uniform(0.7, 1, count),
        kind: rng.lognormal(1, 1, count) * (1e6 if kind == "snr_hz" else 1.0) * count / 20,
    }
    if limits:
        columns["max_bandwidth_hz"] = 1e6 * np.exp(rng.uniform(np.log(0.05), np.log(2), count))
    q = rng.uniform(0.05, 0.6, count)
    return Clients.from_columns(**columns), q, rng.integers(4, 17, count)


KINDS = [("spectral_efficiency", False), ("spectral_efficiency", True), ("snr_hz", False),
         ("snr_hz", True)]  # fmt: skip


@pytest.mark.parametrize(("kind", "limits"), KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_up_to_twelve_clients_are_listed_and_the_law_agrees(kind, limits, seed):
    clients, q, k = population(11, seed, kind, limits)
    exact = round_time(Decision(q, k), clients, SYSTEM)
    mean = mean_and_gradient(q, k, clients, SYSTEM)[0]
    assert mean == pytest.approx(exact.mean, rel=0.02)
    low, high = exact.quantile(0.93), exact.quantile(0.97)
    assert low * 0.95 <= quantile_and_gradient(0.95, q, k, clients, SYSTEM)[0] <= high * 1.05


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "limits"), KINDS)
@pytest.mark.parametrize("count", [30, 150])
def test_more_clients_take_what_drawn_rounds_take(kind, limits, count):
    clients, q, k = population(count, 1, kind, limits)
    draws = 20_000 if kind == "spectral_efficiency" and not limits else 600
    drawn = simulate_round_seconds(Decision(q, k), clients, SYSTEM, draws, 1)
    law = round_time(Decision(q, k), clients, SYSTEM)
    error = 3 * drawn.std() / np.sqrt(draws) / drawn.mean()
    assert law.mean == pytest.approx(drawn.mean(), rel=0.02 + error)
    low, high = np.quantile(drawn, [0.93, 0.97]) if draws < 1000 else [np.quantile(drawn, 0.95)] * 2
    assert low * 0.95 <= law.quantile(0.95) <= high * 1.05


def test_everyone_for_certain_takes_one_time_at_shannon_links_too():
    clients, _, k = population(30, 2, "snr_hz")
    sure = Clients.from_columns(**{**clients.columns(), "availability": np.ones(30)})
    law = round_time(Decision(np.ones(30), k), sure, SYSTEM)
    drawn = simulate_round_seconds(Decision(np.ones(30), k), sure, SYSTEM, 1, 0)[0]
    assert law.mean == drawn == law.quantile(0.5)


@pytest.mark.parametrize(("kind", "limits"), KINDS)
def test_derivatives_are_differences_at_a_kept_window(kind, limits):
    clients, q, k = population(25, 3, kind, limits)
    k = k.astype(float)
    kept = np.array([NeverIdle.near(RoundLaw.of(q, k, clients, SYSTEM)).window])
    _, by_q, by_k = mean_and_gradient(q, k, clients, SYSTEM, quadrature=kept)
    rng = np.random.default_rng(0)
    for _ in range(3):
        towards = rng.uniform(0.5, 1.5, (2, 25))
        ends = [
            mean_and_gradient(q + s * towards[0] * q, k + s * towards[1] * k, clients, SYSTEM,
                              quadrature=kept)[0]
            for s in (1e-4, -1e-4)
        ]  # fmt: skip
        slope = by_q @ (towards[0] * q) + by_k @ (towards[1] * k)
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=0.01)


@pytest.mark.parametrize("kind", ["spectral_efficiency", "snr_hz"])
def test_groups_take_as_long_as_their_members(kind):
    clients, q, k = population(1500, 4, kind)
    q, k = q / 20, k.astype(float)
    groups = group_clients(clients, SYSTEM, 600).at(k)
    whole = round_time(Decision(q, k.astype(int)), clients, SYSTEM)
    assert grouped_round_time(groups, q, k).mean == pytest.approx(whole.mean, rel=0.02)
    mean, by_q, _ = grouped_mean_and_gradient(groups, q, k, quadrature=np.array([1.0]))
    more = grouped_mean_and_gradient(groups, q * 1.0001, k, quadrature=np.array([1.0]))[0]
    assert by_q @ q * 1e-4 == pytest.approx(more - mean, rel=0.02)
    p95 = grouped_quantile_and_gradient(groups, 0.95, q, k)[0]
    assert p95 == pytest.approx(whole.quantile(0.95), rel=0.05)


def test_it_is_never_longer_than_equal_finish():
    for seed in range(5):
        clients, q, k = population(40, seed)
        static = round_time(Decision(q, k), clients, replace(SYSTEM, allocation="equal-finish"))
        assert round_time(Decision(q, k), clients, SYSTEM).mean < static.mean
