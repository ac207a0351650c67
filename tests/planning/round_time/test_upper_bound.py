"""The classical upper bound that starts every search."""

import numpy as np
import pytest

from fedpace.core.plan import Decision
from fedpace.core.profile import Clients
from fedpace.planning.round_time.distribution import simulate_round_seconds, upper_bound_seconds
from fedpace.planning.round_time.upper_bound import bound_and_gradient, solo_seconds
from planning.some_problems import some_clients, some_system

Q = np.array([1.0, 0.3, 0.01, 0.6, 0.5, 0.2, 0.9, 0.4])
K = np.array([8, 2, 3, 5, 4, 2, 8, 1])


@pytest.mark.parametrize("limited", [False, True])
def test_it_is_the_mean_over_all_sets_of_the_last_start_and_all_uploads(limited):
    system = some_system(8)
    limit = {"max_bandwidth_hz": system.bandwidth_hz * np.linspace(0.1, 2, 8)} if limited else {}
    clients = some_clients(8, availability=np.linspace(0.3, 1, 8), **limit)
    part = np.minimum(1, clients.max_bandwidth_hz / system.bandwidth_hz)
    rate = clients.spectral_efficiency * part * system.bandwidth_hz
    upload = (system.fixed_bits + K * system.bits_per_rank) / rate
    start = system.local_steps * (clients.step_seconds + clients.step_seconds_per_rank * K)
    mean, joins = 0.0, Q * clients.availability
    for chosen in np.ndindex(*(2,) * 8):
        who = np.array(chosen, dtype=bool)
        chance = np.prod(np.where(who, joins, 1 - joins))
        last = np.max((start + upload * (1 - part))[who], initial=0.0)
        mean += chance * (last + np.sum((upload * part)[who]))
    expected = pytest.approx(system.overhead_seconds + mean, rel=1e-12)
    assert bound_and_gradient(Q, K.astype(float), clients, system)[0] == expected
    assert upper_bound_seconds(Q, K, clients, system) == expected


@pytest.mark.parametrize("link", ["spectral_efficiency", "snr_hz"])
@pytest.mark.parametrize("limited", [False, True])
def test_no_simulated_mean_exceeds_it(link, limited):
    clients, system = some_clients(8), some_system(8)
    columns = dict(clients.columns())
    columns[link] = columns.pop("spectral_efficiency") * (1 if link != "snr_hz" else 3e6)
    if limited:
        columns["max_bandwidth_hz"] = np.full(8, system.bandwidth_hz / 3)
    clients = Clients.from_columns(**columns)
    bound = bound_and_gradient(Q, K.astype(float), clients, system)[0]
    rounds = simulate_round_seconds(Decision(Q, K), clients, system, 4000, 0)
    error = rounds.std() / np.sqrt(len(rounds))
    assert rounds.mean() - 3 * error < bound < 2 * rounds.mean()


@pytest.mark.parametrize("limited", [False, True])
def test_its_derivatives_are_exact(limited):
    limit = {"max_bandwidth_hz": np.geomspace(1e6, 1e8, 8)} if limited else {}
    clients, system = some_clients(8, **limit), some_system(8)
    k = K.astype(float)
    _, by_q, by_k = bound_and_gradient(Q, k, clients, system)
    for n in range(8):
        step = np.zeros(8)
        step[n] = 1e-6
        lower, upper = (bound_and_gradient(Q - j * step, k, clients, system)[0] for j in (2, 1))
        assert (upper - lower) / 1e-6 == pytest.approx(by_q[n], rel=1e-3, abs=1e-6)
        lower, upper = (bound_and_gradient(Q, k + j * step, clients, system)[0] for j in (-1, 1))
        assert (upper - lower) / 2e-6 == pytest.approx(by_k[n], rel=1e-3, abs=1e-6)


def test_a_count_is_so_many_equal_clients():
    clients, system = some_clients(8), some_system(8)
    three = Clients.from_columns(
        **{n: np.tile(c, 3) for n, c in clients.columns().items() if n != "client_id"}
    )
    k = K.astype(float)
    one, by_q, by_k = bound_and_gradient(Q, k, clients, system, count=np.full(8, 3.0))
    all_, each_q, each_k = bound_and_gradient(np.tile(Q, 3), np.tile(k, 3), three, system)
    assert one == pytest.approx(all_, rel=1e-12)
    np.testing.assert_allclose(by_k, each_k.reshape(3, 8).sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(by_q[1:], each_q.reshape(3, 8).sum(axis=0)[1:], rtol=1e-9)


def test_alone_a_client_takes_its_solo_time():
    clients, system = some_clients(1), some_system(1, overhead_seconds=0.0)
    rank = np.array([3])
    plan = Decision(np.ones(1), rank)
    alone = solo_seconds(clients, system, rank.astype(float))[0]
    assert simulate_round_seconds(plan, clients, system, 1, 0)[0] == pytest.approx(alone)
