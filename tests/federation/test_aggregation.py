"""Unbiasedness by exact enumeration: every participation pattern, every index set."""

import itertools

import numpy as np
import pytest

from federation.toy import LAYOUT, blank, random_adapter, sketched_update
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.federation.aggregation import aggregate

DATA_WEIGHT = np.array([0.5, 0.3, 0.2])


def test_the_mean_over_all_participation_patterns_is_the_full_update():
    q = np.array([0.2, 0.5, 0.9])
    full = [random_adapter(n) for n in range(3)]
    every = range(LAYOUT.rank)
    mean = {name: value.astype(np.float64) for name, value in blank().items()}
    for joined in itertools.product([0, 1], repeat=3):
        chance = np.prod(np.where(joined, q, 1 - q))
        who = [n for n in range(3) if joined[n]]
        updates = [sketched_update(n, full[n], every) for n in who]
        result = aggregate(updates, [DATA_WEIGHT[n] / q[n] for n in who], LAYOUT, SCALED)
        for name in mean:
            mean[name] += chance * result.update[name]
    for name in mean:
        expected = sum(DATA_WEIGHT[n] * full[n][name] for n in range(3))
        np.testing.assert_allclose(mean[name], expected, atol=1e-6)


@pytest.mark.parametrize("sketch_rank", [1, 2, 3, 4])
def test_the_mean_over_all_index_sets_of_a_residual_sketch_is_the_full_update(sketch_rank):
    full = random_adapter(0)
    sets = list(itertools.combinations(range(LAYOUT.rank), sketch_rank))
    mean = {name: value.astype(np.float64) for name, value in blank().items()}
    for chosen in sets:
        result = aggregate([sketched_update(0, full, chosen)], [1.0], LAYOUT, RESIDUAL)
        for name in mean:
            mean[name] += result.update[name] / len(sets)
    for name in mean:
        np.testing.assert_allclose(mean[name], full[name], atol=1e-6)


def test_a_sketched_update_moves_its_components_alone_in_every_module_and_the_head_whole():
    result = aggregate([sketched_update(0, random_adapter(1), [1, 3])], [1.0], LAYOUT, RESIDUAL)
    for t in LAYOUT.tensors:
        moved = result.update[t.name]
        if t.role == "head":
            assert np.all(moved != 0)
        else:
            rows = moved if t.role == "A" else moved.T
            assert np.all(rows[[1, 3]] != 0)
            assert np.all(rows[[0, 2]] == 0)


def test_the_order_of_arrival_does_not_change_a_bit():
    updates = [sketched_update(n, random_adapter(n), [n, 3]) for n in range(3)]
    weights = [0.1, 0.7, 1.3]
    one = aggregate(updates, weights, LAYOUT, RESIDUAL)
    two = aggregate(updates[::-1], weights[::-1], LAYOUT, RESIDUAL)
    for name in one.update:
        assert np.array_equal(one.update[name], two.update[name])
    assert one.client_squared_norms == list(reversed(two.client_squared_norms))


def test_squared_norms_are_those_of_the_update_as_aggregated():
    full = random_adapter(5)
    result = aggregate([sketched_update(0, full, [0, 2])], [1.0], LAYOUT, RESIDUAL)
    lora = sum(np.sum(result.update[t.name] ** 2.0) for t in LAYOUT.tensors if t.role != "head")
    assert result.client_squared_norms[0][0] == pytest.approx(lora, rel=1e-6)
    assert result.squared_norms[0] == pytest.approx(lora, rel=1e-6)
    assert result.squared_norms[1] == pytest.approx(np.sum(full["head"] ** 2.0), rel=1e-6)


def test_an_empty_round_aggregates_to_nothing():
    result = aggregate([], [], LAYOUT, SCALED)
    assert all(not value.any() for value in result.update.values())
    assert result.squared_norms == (0.0, 0.0)
