"""Clipping and noise: sensitivity by neighbouring populations, statistics, identity, one stream."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from federation.toy import LAYOUT, context, random_adapter, sketched_update
from fedpace.core.adapter import squared_norms
from fedpace.core.errors import RunError
from fedpace.core.messages import ClientTask
from fedpace.core.privacy import Privacy
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.engines.exchange import Exchange, decode_update, encode_update
from fedpace.estimation.privacy_loss import epsilon, round_loss
from fedpace.federation.aggregation import Returned
from fedpace.federation.hooks.clipping import clipping
from fedpace.federation.hooks.hook import hooked, leave
from fedpace.federation.hooks.rounding import rounding
from fedpace.federation.methods.sketched import sketched

A = np.array([0.5, 0.3, 0.2])
Q = np.array([0.25, 0.9, 0.4])
K = [1, 4, 2]


def hook(clip=1.0, z=0.0, sketch=RESIDUAL, dtype="float32"):
    return clipping(Privacy(clip, z, 1e-3), LAYOUT, sketch, dtype)


def task(client, rank, round_index=0):
    return ClientTask(client, round_index, {}, rank, 7)


def sent(clip, sketch, scale, dtype="float32"):
    """What clients of the three ranks send of updates of this size, as the server reads it."""
    hooks = (hook(clip, 0, sketch, dtype), *rounding(dtype, LAYOUT.shapes))
    method = sketched(context(sketch))
    exchange = Exchange(LAYOUT, random_adapter(1), method, hooks)
    updates = []
    for n, k in enumerate(K):
        full = {name: np.float32(scale) * v for name, v in random_adapter(n).items()}
        asked = task(n, k)
        update = sketched_update(n, full, exchange.components(asked))
        updates.append(decode_update(exchange, encode_update(exchange, update, asked), asked, 0.0))
    return method, updates


def summed(method, updates):
    back = Returned(updates, {}, [A[u.client] for u in updates],
                    [A[u.client] / Q[u.client] for u in updates])  # fmt: skip
    total, _ = method.aggregate({}, {}, back)
    return np.concatenate([total.update[t.name].ravel() for t in LAYOUT.tensors])


@pytest.mark.parametrize("sketch", [RESIDUAL, SCALED], ids=lambda s: s.name)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_client_more_moves_the_sum_by_its_weight_times_the_clip_norm_at_most(sketch, dtype):
    """Every population of the three, with and without each: the neighbours of the definition."""
    clip = 0.7
    method, updates = sent(clip, sketch, 5.0, dtype)
    for who in product([False, True], repeat=3):
        there = [u for u, joins in zip(updates, who, strict=True) if joins]
        for update in there:
            others = [u for u in there if u is not update]
            moved = np.linalg.norm(summed(method, there) - summed(method, others))
            most = A[update.client] / Q[update.client] * clip
            assert moved <= most * (1 + 1e-6)
            assert moved > 0.98 * most  # the bound is met: the updates are far longer


def test_what_is_short_enough_travels_as_it_is():
    method, updates = sent(1e6, RESIDUAL, 1.0)
    plain = sketched(context(RESIDUAL))
    for n, update in enumerate(updates):
        full = random_adapter(n)
        same = sketched_update(n, full, update.components)
        for name in same.delta:
            assert np.array_equal(same.delta[name], update.delta[name])
    assert np.array_equal(summed(method, updates), summed(plain, updates))


def test_the_cut_keeps_the_direction_and_a_blank_update_stays():
    values = sketched_update(0, random_adapter(3), [1, 2]).delta
    cut = leave([hook(0.5)], values, task(0, 2))
    ratios = np.concatenate([(cut[n] / values[n]).ravel() for n in values])
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-6)
    lora, head = squared_norms(cut, LAYOUT)
    assert np.sqrt(4 * lora + head) == pytest.approx(0.5, rel=1e-5)
    blank = {n: 0 * v for n, v in values.items()}
    assert leave([hook()], blank, task(0, 2)) is blank


def test_a_client_that_did_not_cut_is_refused_and_what_is_not_finite_is_left_to_the_divergence():
    values = sketched_update(0, random_adapter(3), [1, 2]).delta
    with pytest.raises(RunError, match=r"norm .* is above \[privacy\] clip_norm = 0.5"):
        hook(0.5).arrival(values, task(0, 2))
    broken = {n: v * np.float32("nan") for n, v in values.items()}
    assert leave([hook(0.5)], broken, task(0, 2)) is broken
    assert hook(0.5).arrival(broken, task(0, 2)) is broken


def test_the_noise_has_its_deviation_in_every_entry_and_comes_from_one_stream():
    clip, z, largest = 2.0, 0.8, 3.0
    method = hooked(sketched(context(RESIDUAL)), [hook(clip, z)])
    drawn = []
    for index in range(300):
        empty = Returned([], {}, [], [], index, largest_weight=largest, server_seed=11)
        result, _ = method.aggregate({}, {}, empty)
        again, _ = method.aggregate({}, {}, empty)
        other, _ = method.aggregate({}, {}, replace(empty, server_seed=12))
        for name in result.update:
            assert np.array_equal(result.update[name], again.update[name])
            assert not np.array_equal(result.update[name], other.update[name])
        drawn.append(np.concatenate([result.update[t.name].ravel() for t in LAYOUT.tensors]))
        assert any(result.squared_norms)  # so that an empty round moves the adapter, too
    noise = np.array(drawn) / (z * clip * largest)
    count = noise.shape[0]
    assert abs(noise.mean(axis=0)).max() < 4.5 / np.sqrt(count)
    assert abs(noise.std(axis=0) - 1).max() < 4.5 / np.sqrt(2 * count)
    correlation = np.corrcoef(noise.T) - np.eye(noise.shape[1])
    assert abs(correlation).max() < 5.5 / np.sqrt(count)
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 5 / np.sqrt(noise.size)


def test_without_noise_the_sum_is_that_of_the_method():
    method, updates = sent(1e6, RESIDUAL, 1.0)
    weights = [A[u.client] / Q[u.client] for u in updates]
    back = Returned(updates, {}, list(A), weights, largest_weight=2.0)
    plain, _ = method.aggregate({}, {}, back)
    same, _ = hooked(method, [hook(1e6, 0.0)]).aggregate({}, {}, back)
    for name in plain.update:
        assert np.array_equal(plain.update[name], same.update[name])
    assert same.squared_norms == plain.squared_norms


def attack(z, q, rounds, trials):
    """Scores of an attacker who knows the target's update: with it in the population, and without.

    The target is alone, so that nothing but the noise hides it. The score is the likelihood ratio
    of the sums that the server gives away: no test tells the two apart better.
    """
    clip, weight = 0.7, 1 / q
    method, updates = sent(clip, RESIDUAL, 5.0)
    noised, target = hooked(method, [hook(clip, z)]), summed(method, updates[:1])
    target *= weight / (A[0] / Q[0])
    scores = []
    for member in (True, False):
        joins = np.random.default_rng(int(member)).random((trials, rounds)) < q * member
        seen = np.empty((trials, rounds))
        for trial, index in product(range(trials), range(rounds)):
            came = updates[:1] * int(joins[trial, index])
            total, _ = noised.aggregate({}, {}, Returned(
                came, {}, [1.0] * len(came), [weight] * len(came), index,
                largest_weight=weight, server_seed=2 * trial + member,
            ))  # fmt: skip
            given = np.concatenate([total.update[t.name].ravel() for t in LAYOUT.tensors])
            seen[trial, index] = given @ target / (target @ target)
        sigma = max(z, 0.1)
        scores.append(np.log1p(q * np.expm1((seen - 0.5) / sigma**2)).sum(axis=1))
    return scores


@pytest.mark.slow
def test_who_is_in_the_population_is_told_no_better_than_epsilon_allows():
    z, q, rounds, trials, delta = 2.0, 0.5, 2, 2500, 1e-3
    with_it, without = attack(z, q, rounds, trials)
    spent = epsilon(rounds * round_loss(np.array([q]), np.array([1 / q]), z), delta)[0]
    assert 1 < spent < 2
    advantages = []
    for threshold in np.quantile(np.r_[with_it, without], np.linspace(0.02, 0.98, 49)):
        right, wrong = np.mean(with_it > threshold), np.mean(without > threshold)
        room = 4 * np.sqrt(0.25 / trials)
        assert right <= np.exp(spent) * (wrong + room) + delta + room
        assert 1 - wrong <= np.exp(spent) * (1 - right + room) + delta + room
        advantages.append(right - wrong)
    # The attack is one: it tells something with noise, and with next to none whether it ever came.
    assert max(advantages) > 0.1
    with_it, without = attack(0.0, q, rounds, 200)
    assert np.mean(with_it > 0) == pytest.approx(1 - (1 - q) ** rounds, abs=0.1)
    assert np.mean(without > 0) == 0
