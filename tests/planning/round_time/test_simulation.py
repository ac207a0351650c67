"""Simulated and listed rounds, against the allocator."""

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.plan import Decision
from fedpace.core.profile import Clients, System
from fedpace.planning.round_time.simulation import (
    enumerate_round_seconds,
    simulate_round_seconds,
)
from fedpace.wireless.bandwidth import allocate_bandwidth
from fedpace.wireless.channel import uplink
from fedpace.wireless.latency import start_seconds, upload_bits

SYSTEM = System(
    bandwidth_hz=1e6, lora_rank=16, bits_per_rank=1e5, overhead_seconds=0.3,
    allocation="equal-finish",
)  # fmt: skip


def population(count, *, shannon=False, limits=False, seed=0, **columns):
    rng = np.random.default_rng(seed)
    link = "snr_hz" if shannon else "spectral_efficiency"
    columns = {
        "data_weight": rng.lognormal(0, 1, count),
        "step_seconds": np.exp(rng.uniform(0, 3, count)) / 5,
        link: (3e6 if shannon else 1.0) * np.exp(rng.uniform(0, 3, count)),
        **({"max_bandwidth_hz": 1e6 * np.exp(rng.uniform(-3, 0.5, count))} if limits else {}),
        **columns,
    }
    return Clients.from_columns(**columns)


def planned(clients, q, draws=None, rank=8):
    chance = np.broadcast_to(np.asarray(q, dtype=float), (len(clients),)).copy()
    return Decision(chance, np.full(len(clients), rank), draws)


KINDS = [{}, {"shannon": True}, {"limits": True}, {"shannon": True, "limits": True}]


def together(clients, joined):
    """Round time of these participants by the allocator."""
    rank = np.full(len(clients), 8)
    return SYSTEM.overhead_seconds + allocate_bandwidth(
        start_seconds(clients, SYSTEM, rank)[joined], upload_bits(SYSTEM, rank)[joined],
        SYSTEM.bandwidth_hz, max_bandwidth_hz=clients.max_bandwidth_hz[joined], rule="equal-finish",
        **uplink(clients, joined),
    ).round_seconds  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_set_of_participants_takes_the_time_its_bandwidth_allocation_takes(kind):
    clients = population(9, **kind)
    seconds, chance = enumerate_round_seconds(planned(clients, 0.3), clients, SYSTEM)
    assert chance.sum() == pytest.approx(1)
    for number in range(0, 512, 5):
        joined = np.flatnonzero(number >> np.arange(9) & 1)
        assert seconds[number] == pytest.approx(together(clients, joined), rel=1e-11)
        assert chance[number] == pytest.approx(0.3 ** len(joined) * 0.7 ** (9 - len(joined)))


@pytest.mark.parametrize("kind", KINDS)
def test_simulated_rounds_have_the_listed_distribution(kind):
    clients = population(7, availability=np.linspace(0.4, 1, 7), **kind)
    plan = planned(clients, np.linspace(0.9, 0.1, 7))
    seconds, chance = enumerate_round_seconds(plan, clients, SYSTEM)
    drawn = simulate_round_seconds(plan, clients, SYSTEM, 20_000, seed=3)
    assert drawn.shape == (20_000,)
    assert drawn.mean() == pytest.approx(seconds @ chance, abs=4 * drawn.std() / np.sqrt(20_000))
    for s in np.quantile(seconds, [0.1, 0.5, 0.9]) + 1e-9:
        assert np.mean(drawn <= s) == pytest.approx(chance[seconds <= s].sum(), abs=0.015)


def test_a_large_population_takes_the_time_its_bandwidth_allocation_takes():
    clients = population(300, shannon=True, limits=True)
    drawn = simulate_round_seconds(planned(clients, 1.0), clients, SYSTEM, 3, seed=0)
    np.testing.assert_allclose(drawn, together(clients, np.arange(300)), rtol=1e-11)


def test_the_seed_decides_the_rounds():
    clients = population(20)
    plan = planned(clients, 0.2)
    first, again, other = (
        simulate_round_seconds(plan, clients, SYSTEM, 50, seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_draws_with_replacement_are_followed_to_the_letter():
    """One draw: always exactly one participant, alone in the band."""
    clients = population(5)
    share = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
    alone = np.array([together(clients, [n]) for n in range(5)])
    drawn = simulate_round_seconds(planned(clients, share, draws=1), clients, SYSTEM, 20_000, 0)
    counts = [np.mean(np.isclose(drawn, s, rtol=1e-9)) for s in alone]
    np.testing.assert_allclose(counts, share, atol=0.015)


def test_too_many_clients_to_list_are_refused():
    clients = population(17)
    with pytest.raises(InputError, match="17 clients have 2\\^17 sets"):
        enumerate_round_seconds(planned(clients, 0.5), clients, SYSTEM)
