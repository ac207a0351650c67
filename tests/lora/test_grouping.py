import numpy as np
import pytest

from fedpace.lora.grouping import _PASS_TOKENS, group_by_length

pytestmark = pytest.mark.torch


def cost(groups, lengths):
    return sum(_PASS_TOKENS + len(rows) * lengths[rows].max() for rows in groups)


def all_partitions(rows):
    if not rows:
        yield []
        return
    first, *rest = rows
    for smaller in all_partitions(rest):
        yield [[first], *smaller]
        for i, group in enumerate(smaller):
            yield [*smaller[:i], [first, *group], *smaller[i + 1 :]]


@pytest.mark.parametrize("seed", range(8))
def test_no_division_costs_less(seed):
    lengths = np.random.default_rng(seed).integers(1, 120, 7)
    allowed = [
        [np.array(g) for g in groups]
        for groups in all_partitions(list(range(7)))
        if all(len(g) == 1 or len(g) * lengths[g].max() <= 300 for g in groups)
    ]
    ours = group_by_length(lengths, 300)
    assert cost(ours, lengths) == min(cost(groups, lengths) for groups in allowed)
    assert len({len(groups) for groups in allowed}) > 1


@pytest.mark.parametrize("max_tokens", [1, 50, 200, 10_000])
def test_every_row_is_in_one_group_and_no_group_too_large(max_tokens):
    lengths = np.random.default_rng(0).integers(1, 64, 100)
    groups = group_by_length(lengths, max_tokens)
    np.testing.assert_array_equal(np.sort(np.concatenate(groups)), np.arange(100))
    for rows in groups:
        assert np.all(np.diff(rows) > 0)
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= max_tokens


def test_no_rows_no_groups():
    assert group_by_length(np.zeros(0, dtype=np.int64), 100) == []
