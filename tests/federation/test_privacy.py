"""Rounds with privacy: the account of what clients spend, and an attack on a tiny population."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("dp_accounting")

from federation.test_rounds import InstantEngine, federation
from federation.toy import LAYOUT, blank, context, make_plan, random_adapter, towards
from fedpace.core.messages import ClientTask
from fedpace.core.privacy import Privacy
from fedpace.core.sketch import RESIDUAL
from fedpace.estimation.privacy_loss import epsilon, round_loss
from fedpace.federation.hooks.clipping import clipping
from fedpace.federation.hooks.hook import hooked, leave
from fedpace.federation.methods.sketched import sketched
from fedpace.federation.privacy import nothing_spent, rounds_within
from fedpace.federation.rounds import ServerState, possible_weights, run_round
from fedpace.federation.server_optimizer import server_sgd

CLIP, Z, DELTA = 0.3, 1.2, 1e-3
TERMS = Privacy(CLIP, Z, DELTA)


def cutting(train, terms=TERMS):
    """Clients that cut, as `encode_update` does."""
    hook = clipping(terms, LAYOUT, RESIDUAL, "float32")
    return lambda tasks: [
        replace(u, delta=leave([hook], u.delta, t))
        for u, t in zip(train(tasks), tasks, strict=True)
    ]


def private(count, terms=TERMS, **changes):
    method = sketched(context(RESIDUAL))
    hook = clipping(terms, LAYOUT, RESIDUAL, "float32")
    return federation(count, aggregation=hooked(method, [hook]), privacy=terms, **changes)


def play(engine, fed, plans):
    state = ServerState(0, blank(), server_sgd(1.0).init(blank()), plans[0])
    records = []
    for made in plans:
        record, state = run_round(engine, fed, replace(state, plan=made))
        records.append(record)
    return records, state


def test_what_clients_spend_adds_up_over_plans_that_change():
    plans = [make_plan([0.5, 0.2, 0.9], [4, 4, 4])] * 3 + [
        make_plan([0.1, 0.8, 1.0], [2, 2, 2])
    ] * 2
    fed = private(3, availability=[1.0, 0.5, 1.0])
    records, state = play(InstantEngine(cutting(towards(random_adapter(0)))), fed, plans)
    by_hand = 0
    for made in plans:
        weight = fed.data_weight / made.sampling_probability / fed.availability
        by_hand = by_hand + round_loss(made.sampling_probability, weight, Z)
    np.testing.assert_allclose(state.spent, by_hand, rtol=1e-12)
    each = epsilon(by_hand, DELTA)
    told = records[-1].privacy
    assert told["epsilon_max"] == pytest.approx(each.max())
    assert told["epsilon_client"] == np.argmax(each)
    assert told["epsilon_median"] == pytest.approx(np.median(each))
    assert [r.privacy["epsilon_max"] for r in records] == sorted(
        r.privacy["epsilon_max"] for r in records
    )


def test_an_empty_round_is_noised_and_charged_all_the_same():
    fed = private(2)
    never = [make_plan([1e-9, 1e-9], [4, 4])]
    records, state = play(InstantEngine(cutting(towards(random_adapter(0)))), fed, never)
    assert records[0].participants == ()
    largest = possible_weights(fed, replace(state, plan=never[0])).max()
    moved = np.concatenate([state.adapter[t.name].ravel() for t in LAYOUT.tensors])
    assert moved.std() == pytest.approx(Z * CLIP * largest, rel=0.3)
    assert records[0].privacy["noise_deviation"] == pytest.approx(Z * CLIP * largest)
    assert state.spent.shape[0] == 2


def test_rounds_within_counts_to_the_last_that_is_allowed():
    plan, weight = make_plan([0.5, 0.2], [4, 4]), np.array([1.0, 2.5])
    one = round_loss(plan.sampling_probability, weight, Z)
    each = [epsilon(n * one, DELTA).max() for n in range(1, 12)]
    for allowed in (0, 1, 6):
        limit = (each[allowed] + (each[allowed - 1] if allowed else 0)) / 2
        terms = replace(TERMS, max_epsilon=float(limit))
        found, who = rounds_within(nothing_spent(), plan, weight, terms, 10)
        assert found == allowed
        assert who == np.argmax(epsilon((allowed + 1) * one, DELTA))
    assert rounds_within(nothing_spent(), plan, weight, TERMS, 10)[0] == 10


@pytest.mark.parametrize("z", [0.0, 1.2])
def test_an_attack_on_a_tiny_population_wins_without_noise_and_not_more_than_allowed_with_it(z):
    """Three clients, one of them in or out: the likelihood of the sum, which the attacker knows."""
    terms = Privacy(CLIP, z, DELTA)
    victim, plan = 0, make_plan([0.5, 0.5, 0.5], [4, 4, 4])
    target = random_adapter(5)
    still = towards({n: np.zeros_like(v) for n, v in target.items()}, 0.0)  # updates of zero

    def with_victim(tasks):
        there = towards(target)(tasks)
        gone = still(tasks)
        return [u if t.client == victim else g
                for u, g, t in zip(there, gone, tasks, strict=True)]  # fmt: skip

    fed = private(3, terms)
    asked = [ClientTask(victim, 0, blank(), 4, fed.seed)]
    direction = cutting(with_victim, terms)(asked)[0].delta
    weight = fed.data_weight[victim] / 0.5
    shift = weight * np.concatenate([direction[t.name].ravel() for t in LAYOUT.tensors])

    def says_in(train, seed):
        engine = InstantEngine(cutting(train, terms))
        _, state = play(engine, replace(fed, server_seed=seed), [plan])
        moved = np.concatenate([state.adapter[t.name].ravel() for t in LAYOUT.tensors])
        along = float(moved.astype(np.float64) @ shift) / float(shift @ shift)
        # The likelihood ratio of q N(1) + (1-q) N(0) is above 1 where N(1) is the likelier.
        return along > 0.5

    trials = 300
    true = np.mean([says_in(with_victim, n) for n in range(trials)])
    false = np.mean([says_in(still, 10_000 + n) for n in range(trials)])
    if z == 0:
        assert abs(true - 0.5) < 0.1 and false == 0  # whenever it joined it was seen
        return
    allowed = epsilon(round_loss(np.array([0.5]), np.ones(1), z), DELTA)[0]
    slack = 3 * np.sqrt(0.25 / trials)
    assert true <= np.exp(allowed) * false + DELTA + slack
    odds = np.exp(allowed)
    assert true - false <= (odds - 1 + 2 * DELTA) / (odds + 1) + 2 * slack
