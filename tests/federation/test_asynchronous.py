"""Asynchronous rivals, each against a case computed by hand or an identity."""

import numpy as np
import pytest

from federation.test_beats import federation, network
from federation.toy import LAYOUT, blank, exchange, make_plan, random_adapter, towards
from fedpace.core.adapter import take_components
from fedpace.core.errors import InputError
from fedpace.core.messages import ClientUpdate
from fedpace.engines.overlapping import OverlappingSimulation
from fedpace.federation.aggregation import Returned
from fedpace.federation.buffered import run_buffer
from fedpace.federation.methods.ca2fl import ca2fl
from fedpace.federation.methods.fadas import fadas
from fedpace.federation.methods.fedasync import fedasync
from fedpace.federation.methods.fedbuff import fedbuff
from fedpace.federation.rounds import ServerState
from fedpace.federation.server_optimizer import server_sgd

SHARE = np.array([0.5, 0.3, 0.2])
EVERY = np.arange(LAYOUT.rank)


def constant(value):
    return {t.name: np.full(t.shape, value, dtype=np.float32) for t in LAYOUT.tensors}


def update(client, delta, started=0):
    return ClientUpdate(client, started, EVERY, take_components(delta, LAYOUT, EVERY), 0.0)


def back(updates, round_index=0, needed=()):
    share = [float(SHARE[u.client]) for u in updates]
    return Returned(updates, {}, share, share, round_index, frozenset(needed))


def value(adapter):
    """The one value of an adapter that is constant."""
    (only,) = {float(v) for x in adapter.values() for v in np.unique(x)}
    return only


def run(aggregation, net, plan, steps, target, optimizer=None):
    fed = federation(net, aggregation=aggregation, server_optimizer=optimizer or server_sgd(1.0))
    adapter, memory = aggregation.begin(blank())
    state = ServerState(0, adapter, fed.server_optimizer.init(adapter), plan, memory)
    engine = OverlappingSimulation(towards(target, 0.3), net, exchange(), seed=0)
    records = []
    for _ in range(steps):
        record, state = run_buffer(engine, fed, state)
        records.append(record)
    return records, state


def test_fedasync_mixes_in_the_model_of_a_client_that_started_earlier():
    """X_0 = 0 moves 0.6 of the way to 1; then one that started at X_0 arrives from 3."""
    method = fedasync(LAYOUT, 0.6)
    first, memory = method.aggregate(blank(), {}, back([update(0, constant(1.0))], 0, {0}))
    x1 = value(first.update)
    assert x1 == pytest.approx(0.6)
    assert {key.partition("/")[0] for key in memory} == {"0"}
    second, memory = method.aggregate(
        first.update, memory, back([update(1, constant(3.0), started=0)], 1)
    )
    assert value(second.update) == pytest.approx(0.6 / np.sqrt(2) * (3 - x1))
    assert memory == {}
    with pytest.raises(InputError, match="mixing weight of 'fedasync'"):
        fedasync(LAYOUT, 1.5)


def test_fedasync_that_mixes_all_in_and_never_waits_is_local_training_in_turn():
    """alpha = 1, one busy client: each takes over where the last one ended."""
    target = random_adapter(1)
    net = network([0.2, 0.3, 0.1])
    _, state = run(fedasync(LAYOUT, 1.0), net, make_plan([1 / 3] * 3, [4] * 3), 5, target)
    for name in target:
        np.testing.assert_allclose(state.adapter[name], target[name] * (1 - 0.7**5), rtol=1e-4)
    assert state.memory == {}


def test_fedbuff_averages_its_buffer_and_discounts_the_old():
    method = fedbuff(LAYOUT, 2)
    result, _ = method.aggregate(
        blank(), {}, back([update(0, constant(1.0), 3), update(2, constant(2.0), 0)], 3)
    )
    assert value(result.update) == pytest.approx((0.5 * 1.0 + 0.2 * 2.0 / np.sqrt(4)) / 0.7)
    assert result.weights == pytest.approx([5 / 7, 1 / 7])


@pytest.mark.parametrize("make", [fedbuff, lambda layout, k: ca2fl(layout, k, np.full(3, 1 / 3))])
def test_a_buffer_of_all_who_are_always_busy_is_federated_averaging(make):
    """Equal data, everyone busy, K = N, equal speed: nobody is late, and the caches cancel."""
    target = random_adapter(2)
    net = network([0.2, 0.2, 0.2], efficiency=100.0)
    records, state = run(make(LAYOUT, 3), net, make_plan([1, 1, 1], [4] * 3), 4, target)
    started = [[p.started_round for p in r.participants] for r in records]
    assert started == [[n] * 3 for n in range(4)]
    for name in target:
        np.testing.assert_allclose(state.adapter[name], target[name] * (1 - 0.7**4), rtol=1e-4)


def test_ca2fl_calibrates_by_what_each_client_sent_last():
    method = ca2fl(LAYOUT, 1, SHARE)
    _, memory = method.begin(blank())
    first, memory = method.aggregate(blank(), memory, back([update(0, constant(1.0))]))
    assert value(first.update) == pytest.approx(1.0)
    second, memory = method.aggregate(blank(), memory, back([update(1, constant(4.0))]))
    assert value(second.update) == pytest.approx(0.5 * 1.0 + 4.0)
    third, memory = method.aggregate(blank(), memory, back([update(0, constant(2.0))]))
    assert value(third.update) == pytest.approx(0.5 * 1.0 + 0.3 * 4.0 + (2.0 - 1.0))
    assert memory["head"][0, 0, 0] == 2.0
    assert method.grow(memory)["head"].shape == (3, 2, 3)
    with pytest.raises(InputError, match="'ca2fl' keeps an adapter"):
        ca2fl(LAYOUT, 1, np.broadcast_to(1e-8, 10**8))


def test_fadas_is_amsgrad_without_bias_correction_and_slows_down_for_the_old():
    method = fadas(LAYOUT, 1, 0.1)
    _, memory = method.begin(blank())
    first, memory = method.aggregate(blank(), memory, back([update(0, constant(2.0))]))
    v = 0.01 * 4.0
    assert value(first.update) == pytest.approx(0.1 * 0.2 / np.sqrt(v), rel=1e-5)
    second, memory = method.aggregate(blank(), memory, back([update(1, constant(0.1), 0)], 4))
    m = 0.9 * 0.2 + 0.1 * 0.1  # and v has fallen: AMSGrad keeps the larger one
    assert value(second.update) == pytest.approx(0.1 / 4 * m / np.sqrt(v), rel=1e-5)


def test_a_fixed_number_is_busy_and_whoever_arrives_is_replaced():
    net = network([0.1, 0.7, 0.2, 1.9, 0.4], efficiency=50.0)
    plan = make_plan([0.4] * 5, [4] * 5)  # two of five
    records, state = run(fedbuff(LAYOUT, 3), net, plan, 40, random_adapter(0))
    assert all(len(r.participants) == 3 for r in records)
    assert len(state.underway) in (1, 2)  # the last one was not replaced yet
    ages = [r.round - p.started_round for r in records for p in r.participants]
    assert max(ages) >= 1
    assert min(ages) == 0
    for r in records:
        keys = [(p.client, p.started_round) for p in r.participants]
        assert len(set(keys)) == len(keys), "a client begins once on an adapter"
    assert np.all(np.diff([r.clock_seconds for r in records]) > 0)
