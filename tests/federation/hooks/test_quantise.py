import numpy as np
import pytest

from fedpace.federation.hooks.quantise import (
    from_bfloat16,
    from_int4,
    from_int8,
    to_bfloat16,
    to_int4,
    to_int8,
)


def updates(count=20_000, seed=0):
    """Values over many orders of magnitude, as updates have them."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=count) * 10.0 ** rng.uniform(-8, 2, count)).astype(np.float32)


@pytest.mark.torch
def test_bfloat16_is_torchs():
    torch = pytest.importorskip("torch")
    values = np.concatenate([updates(), np.float32([0, -0.0, 1e-40, np.inf, -np.inf, 3.3e38])])
    expected = torch.from_numpy(values).to(torch.bfloat16)
    assert torch.equal(torch.from_numpy(from_bfloat16(to_bfloat16(values))), expected.float())
    assert np.isnan(from_bfloat16(to_bfloat16(np.float32([np.nan, -np.nan])))).all()


def test_int8_has_no_bias_and_an_error_below_one_level():
    values = updates(50)
    draws = [to_int8(values, np.random.default_rng(i)) for i in range(4000)]
    scale = draws[0][1]
    assert scale == pytest.approx(np.abs(values).max() / 127)
    read = np.array([from_int8(levels, scale) for levels, _ in draws])
    assert np.abs(read - values).max() <= scale * (1 + 1e-5)
    # A level's deviation is at most 1/2; five standard errors.
    np.testing.assert_allclose(read.mean(axis=0), values, atol=5 * 0.5 * scale / np.sqrt(4000))


def test_the_chance_of_the_upper_level_is_the_distance_from_the_lower_one():
    """Exact: with u on a grid, the share of u that rounds up is the fraction."""

    class Grid:
        def random(self, size, dtype):
            return (np.arange(size) / size).astype(dtype)

    levels, scale = to_int8(np.array([127.0] + [0.3] * 999, np.float32), Grid())
    assert scale == 1.0
    assert levels[1:].sum() == pytest.approx(0.3 * 999, abs=2)


def test_int8_of_nothing_but_zeros_and_of_what_is_not_finite():
    rng = np.random.default_rng(0)
    assert not from_int8(*to_int8(np.zeros(5, np.float32), rng)).any()
    assert np.isnan(from_int8(*to_int8(np.float32([1.0, np.inf]), rng))).all()
    assert np.isnan(from_int8(*to_int8(np.float32([1.0, np.nan]), rng))).all()


def test_int4_has_no_bias_and_an_error_below_one_level():
    """Of values of one size: levels are coarse."""
    values = np.random.default_rng(3).normal(size=51).astype(np.float32)
    draws = [to_int4(values, np.random.default_rng(i)) for i in range(4000)]
    scale = draws[0][1]
    assert scale == pytest.approx(np.abs(values).max() / 7)
    read = np.array([from_int4(pairs, scale, 51) for pairs, _ in draws])
    assert np.abs(read - values).max() <= scale * (1 + 1e-5)
    assert len(np.unique(read)) <= 15
    np.testing.assert_allclose(read.mean(axis=0), values, atol=5 * 0.5 * scale / np.sqrt(4000))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8])
def test_int4_puts_two_values_into_a_byte(count):
    levels = (np.arange(count, dtype=np.float32) % 15) - 7
    levels[:1] = -7  # the scale is 1
    pairs, scale = to_int4(levels, np.random.default_rng(0))
    assert pairs.dtype == np.uint8
    assert len(pairs) == (count + 1) // 2
    np.testing.assert_array_equal(from_int4(pairs, scale, count), levels)


def test_int4_of_nothing_but_zeros_and_of_what_is_not_finite():
    rng = np.random.default_rng(0)
    assert not from_int4(*to_int4(np.zeros(5, np.float32), rng), 5).any()
    for odd in (np.inf, -np.inf, np.nan):
        assert np.isnan(from_int4(*to_int4(np.float32([1.0, odd, 0.0]), rng), 3)).all()


def test_values_too_small_for_a_scale_become_zero():
    tiny = np.float32([1e-45, -1e-45])
    for to, back in (
        (to_int8, lambda q, s: from_int8(q, s)),
        (to_int4, lambda q, s: from_int4(q, s, 2)),
    ):
        assert not back(*to(tiny, np.random.default_rng(0))).any()
