from dataclasses import replace

import numpy as np
import pytest

from federation.toy import LAYOUT, blank, context, make_plan, random_adapter, towards
from fedpace.core.sketch import RESIDUAL
from fedpace.federation.engine import Delivery, RoundOutcome
from fedpace.federation.hooks.fedvarp import fedvarp
from fedpace.federation.hooks.hook import hooked
from fedpace.federation.methods.sketched import sketched
from fedpace.federation.rounds import Federation, ServerState, run_round
from fedpace.federation.server_optimizer import server_sgd


class InstantEngine:
    """An engine whose rounds take one second per participant."""

    def __init__(self, train):
        self._train, self._now = train, 0.0

    def now(self):
        return self._now

    def run_round(self, round_index, tasks):
        self._now += len(tasks)
        deliveries = [Delivery(10, 20, 0.5, 0.5, 1.0) for _ in tasks]
        return RoundOutcome(self._train(tasks), deliveries, float(len(tasks)))


def federation(count, sketch=RESIDUAL, availability=None, **changes):
    return Federation(**{
        "method": "test", "layout": LAYOUT, "data_weight": np.full(count, 1 / count),
        "availability": np.ones(count) if availability is None else np.asarray(availability),
        "aggregation": sketched(context(sketch)), "server_optimizer": server_sgd(1.0), "seed": 0,
        **changes,
    })  # fmt: skip


def play(engine, fed, plan, rounds):
    adapter, memory = fed.aggregation.begin(blank())
    state = ServerState(0, adapter, fed.server_optimizer.init(adapter), plan, memory)
    records = []
    for _ in range(rounds):
        record, state = run_round(engine, fed, state)
        records.append(record)
    return records, state


def test_full_participation_at_full_rank_is_plain_federated_averaging():
    target = random_adapter(0)
    records, state = play(
        InstantEngine(towards(target, 0.3)), federation(3), make_plan([1, 1, 1], [4, 4, 4]), 5
    )
    for name in target:
        np.testing.assert_allclose(state.adapter[name], target[name] * (1 - 0.7**5), rtol=1e-5)
    assert [len(r.participants) for r in records] == [3] * 5
    assert records[-1].upload_bits == 3 * 20 * 8


def test_sampled_sketched_rounds_still_reach_the_common_target():
    target = random_adapter(1)
    plan = make_plan([0.9, 0.6, 0.8, 0.7], [2, 3, 4, 1])
    _, state = play(InstantEngine(towards(target, 0.1)), federation(4), plan, 200)
    for name in target:
        np.testing.assert_allclose(state.adapter[name], target[name], atol=2e-3)


def test_an_empty_round_is_recorded_and_changes_nothing():
    plan = make_plan([1e-9, 1e-9], [1, 1])
    records, state = play(InstantEngine(towards(random_adapter(0))), federation(2), plan, 3)
    assert [r.participants for r in records] == [(), (), ()]
    assert records[0].train_loss is None
    assert all(not value.any() for value in state.adapter.values())
    assert state.round_index == 3


def test_an_empty_round_moves_by_what_the_server_remembers():
    """Everyone once, then nobody: the second round repeats a share of the first."""
    target = random_adapter(0)
    about = context(RESIDUAL, share=np.full(2, 0.5))
    method = hooked(sketched(about), [fedvarp(about, 0.4)])
    fed = federation(2, aggregation=method)
    engine = InstantEngine(towards(target, 0.3))
    _, state = play(engine, fed, make_plan([1, 1], [4, 4]), 1)
    record, after = run_round(engine, fed, replace(state, plan=make_plan([1e-9, 1e-9], [4, 4])))
    assert record.participants == ()
    for name in target:
        np.testing.assert_allclose(state.adapter[name], 0.3 * target[name], rtol=1e-5)
        np.testing.assert_allclose(after.adapter[name], 0.42 * target[name], rtol=1e-5)


def test_the_weight_of_a_client_that_seldom_answers_is_raised_by_its_availability():
    plan = make_plan([1.0, 0.5], [4, 4])
    fed = federation(2, availability=[0.25, 1.0])
    records, _ = play(InstantEngine(towards(random_adapter(0))), fed, plan, 10)
    weights = {p.client: p.weight for r in records for p in r.participants}
    assert weights == {0: pytest.approx(0.5 / 0.25), 1: pytest.approx(0.5 / 0.5)}


def test_the_same_seed_gives_the_same_bits():
    runs = [
        play(
            InstantEngine(towards(random_adapter(0))), federation(3),
            make_plan([0.5, 0.5, 0.5], [2, 2, 2]), 6,
        )[1]
        for _ in range(2)
    ]  # fmt: skip
    for name in runs[0].adapter:
        assert np.array_equal(runs[0].adapter[name], runs[1].adapter[name])
