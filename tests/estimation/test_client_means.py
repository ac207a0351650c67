import json

import numpy as np
import pytest

from fedpace.estimation.client_means import ClientMeans, fold, no_observations, shrunk


def observed(true, rounds, chance, scatter, seed=0, forget=1.0):
    rng, means = np.random.default_rng(seed), no_observations(len(true))
    for _ in range(rounds):
        client = np.flatnonzero(rng.random(len(true)) < chance)
        noise = np.exp(scatter * rng.normal(size=len(client)) - scatter**2 / 2)
        means = fold(means, client, true[client] * noise, forget)
    return means


def test_the_mean_is_the_forgotten_mean_of_what_was_seen():
    values, means = [3.0, 1.0, 2.0, 5.0], no_observations(2)
    for value in values:
        means = fold(means, np.array([1]), np.array([value]), 0.5)
    expected = np.average(values, weights=[0.125, 0.25, 0.5, 1.0])
    assert means.mean[1] == pytest.approx(expected)
    assert means.observations.tolist() == [0, 4] and means.mean[0] == 0


def test_clients_that_are_alike_get_one_value_and_clients_apart_keep_their_own():
    alike = shrunk(observed(np.full(100, 2.0), 30, 0.2, 0.5), 1.0)
    assert alike.mean() == pytest.approx(2.0, rel=0.05)
    assert np.log(alike).std() < 0.05  # of one client's own mean, 0.5 / sqrt(6) = 0.2
    rng = np.random.default_rng(1)
    apart = np.exp(rng.normal(size=100))
    np.testing.assert_allclose(shrunk(observed(apart, 200, 0.5, 0.2), 1.0), apart, rtol=0.1)


def test_shrinking_errs_less_than_own_means_and_than_no_means_at_every_spread():
    for spread in (0.1, 0.3, 1.0):
        true = np.exp(spread * np.random.default_rng(2).normal(size=300))
        means = observed(true, 20, 0.2, 0.5)
        seen = means.observations > 0
        error = np.log(shrunk(means, 1.0) / true)[seen].std()
        own = np.log(means.mean[seen] / true[seen]).std()
        assert error < 1.05 * min(own, np.log(true).std())


def test_who_was_not_seen_gets_what_is_typical_and_nobody_is_judged_by_one_look():
    means = observed(np.array([1.0, 1.0, 4.0, 4.0, 9.0]), 50, np.array([1, 1, 1, 1, 0]), 0.1)
    assert shrunk(means, 1.0)[4] == pytest.approx(2.0, rel=0.05)  # the geometric mean
    once = fold(no_observations(3), np.array([0, 1]), np.array([1.0, 9.0]), 1.0)
    assert shrunk(once, 1.0).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("forget", [1.0, 0.5])
def test_the_variance_within_clients_is_found_whatever_lies_between_them(forget):
    true = np.exp(np.random.default_rng(3).normal(size=400))
    means = observed(true, 60, 0.5, 0.1, forget=forget)
    relative_variance = np.expm1(0.1**2)
    assert means.squared_errors / means.errors == pytest.approx(relative_variance, rel=0.06)


def test_json_gives_the_means_back_bit_for_bit():
    means = observed(np.array([1.0, 2.0, 3.0]), 10, 0.5, 0.3, forget=0.9)
    table = json.loads(json.dumps(means.to_json()))
    again = ClientMeans.from_json(table)
    assert again.to_json() == means.to_json()
    np.testing.assert_array_equal(shrunk(again, 0.9), shrunk(means, 0.9))
