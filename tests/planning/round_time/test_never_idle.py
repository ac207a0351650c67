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
from fedpace.wireless.channel import GAIN_FLOOR, faded, mean_faded
from fedpace.wireless.fading import typical_share_hz
from fedpace.wireless.latency import start_seconds, upload_bits
from fedpace.wireless.work_conserving import finish_seconds

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


FADES = replace(SYSTEM, fading=True)


def faded_rounds(clients, q, k, rounds):
    """Rounds over the links themselves, each with its gains; no law and no mean link."""
    rng = np.random.default_rng(0)
    joined = rng.random((rounds, len(q))) < q * clients.availability
    gains = np.maximum(rng.exponential(size=joined.shape), GAIN_FLOOR)
    name, value = clients.link
    links = np.array([faded(clients, row).link[1] for row in gains])
    every = np.broadcast_to(np.minimum(clients.max_bandwidth_hz, 1e6), joined.shape)
    ends = finish_seconds(
        np.where(joined, start_seconds(clients, SYSTEM, k), np.inf),
        np.where(joined, upload_bits(SYSTEM, k), 0.0), every, {name: links}, 1e6,
    )  # fmt: skip
    return SYSTEM.overhead_seconds + np.where(joined, ends, 0.0).max(axis=1)


def seen(clients):
    return mean_faded(clients, typical_share_hz(SYSTEM.bandwidth_hz, len(clients)))


@pytest.mark.parametrize(("kind", "limits", "count", "rounds", "off"), [
    ("spectral_efficiency", False, 10, 20_000, 0.02),
    pytest.param("spectral_efficiency", False, 100, 20_000, 0.02, marks=pytest.mark.slow),
    pytest.param("spectral_efficiency", True, 30, 600, 0.03, marks=pytest.mark.slow),
    ("snr_hz", False, 10, 400, 0.04),
])  # fmt: skip
def test_where_links_fade_rounds_take_what_they_take(kind, limits, count, rounds, off):
    """Also where all take part for certain: by mean links the round would take one time."""
    clients, q, k = population(count, 1, kind, limits)
    sure = Clients.from_columns(**{**clients.columns(), "availability": np.ones(count)})
    for people, chance in ((clients, q), (sure, np.ones(count))):
        drawn = faded_rounds(people, chance, k, rounds)
        law = round_time(Decision(chance, k), seen(people), FADES)
        error = 3 * drawn.std() / np.sqrt(rounds) / drawn.mean()
        assert law.mean == pytest.approx(drawn.mean(), rel=off + error)
        width = 3 * np.sqrt(0.05 * 0.95 / rounds)
        low, high = np.quantile(drawn, [0.95 - width, min(0.95 + width, 1)])
        assert low * 0.95 <= law.quantile(0.95) <= high * 1.05
        mean = mean_and_gradient(chance, k, seen(people), FADES)[0]
        assert mean == pytest.approx(law.mean, rel=1e-6)
        p95 = quantile_and_gradient(0.95, chance, k, seen(people), FADES)[0]
        assert p95 == pytest.approx(law.quantile(0.95), rel=0.08)
    if count < 100:  # so that the law above says something
        still = round_time(Decision(chance, k), seen(sure), SYSTEM)
        assert still.quantile(0.95) < 0.9 * low


@pytest.mark.parametrize("allocation", ["work-conserving", "equal-finish", "equal-share"])
def test_simulated_rounds_fade_as_links_do(allocation):
    clients, q, k = population(8, 2)
    system = replace(FADES, allocation=allocation)
    simulated = simulate_round_seconds(Decision(q, k), seen(clients), system, 20_000, 0)
    still = simulate_round_seconds(
        Decision(q, k), seen(clients), replace(system, fading=False), 20_000, 0
    )
    assert np.quantile(simulated, 0.95) > 1.05 * np.quantile(still, 0.95)
    if allocation == "work-conserving":
        drawn = faded_rounds(clients, q, k, 4000)
        error = 4 * drawn.std() / np.sqrt(4000)
        assert simulated.mean() == pytest.approx(drawn.mean(), abs=error)


@pytest.mark.parametrize("limits", [False, True])
def test_derivatives_over_fading_links_are_differences(limits):
    clients, q, k = population(12, 3, limits=limits)
    clients, k = seen(clients), k.astype(float)
    kept = np.array([NeverIdle.near(RoundLaw.of(q, k, clients, FADES)).window])
    rng = np.random.default_rng(0)
    for made in (
        lambda q, k: mean_and_gradient(q, k, clients, FADES, quadrature=kept),
        lambda q, k: quantile_and_gradient(0.9, q, k, clients, FADES, quadrature=kept),
    ):
        _, by_q, by_k = made(q, k)
        towards = rng.uniform(0.5, 1.5, (2, 12))
        ends = [made(q + s * towards[0] * q, k + s * towards[1] * k)[0] for s in (1e-4, -1e-4)]
        slope = by_q @ (towards[0] * q) + by_k @ (towards[1] * k)
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=0.03)


def test_groups_over_fading_links_take_as_long_as_their_members():
    clients, q, k = population(1500, 4)
    clients, q, k = seen(clients), q / 20, k.astype(float)
    groups = group_clients(clients, FADES, 600).at(k)
    whole = round_time(Decision(q, k.astype(int)), clients, FADES)
    merged = grouped_round_time(groups, q, k)
    assert merged.mean == pytest.approx(whole.mean, rel=0.02)
    assert merged.quantile(0.95) == pytest.approx(whole.quantile(0.95), rel=0.05)
