"""The code of positions: all small cases, its length against the least there is, hostile bytes."""

from itertools import combinations
from math import comb, log2

import numpy as np
import pytest

from fedpace.core.errors import RunError
from fedpace.federation.hooks.positions import pack, unpack


@pytest.mark.parametrize("size", [1, 2, 7, 12])
def test_every_set_of_every_size_comes_back(size):
    for count in range(size + 1):
        lengths = set()
        for chosen in combinations(range(size), count):
            code = pack(np.array(chosen, dtype=np.int64), size)
            lengths.add(len(code))
            assert unpack(code, size, count).tolist() == list(chosen)
        assert len(lengths) == 1  # so that both ends know it before


def test_a_code_by_hand():
    """Of 16 places 0, 9 and 15: two lower bits each, 00 10 11, lower bit first; upper 0, 2, 3."""
    upper = "1" + "00" + "1" + "0" + "1" + "0"  # a step to 1, to 2, a one; a step to 3, a one; pad
    bits = upper + "00" + "10" + "11"
    expected = [int(bits.ljust(16, "0")[i : i + 8], 2) for i in (0, 8)]
    assert pack(np.array([0, 9, 15]), 16).tolist() == expected


@pytest.mark.parametrize("share", [0.9, 0.5, 0.25, 0.1, 1 / 16, 1 / 50, 1 / 256])
def test_the_length_is_near_the_least_that_any_code_has(share):
    size = 20_000
    count = int(share * size)
    chosen = np.sort(np.random.default_rng(0).choice(size, count, replace=False))
    code = pack(chosen, size)
    assert np.array_equal(unpack(code, size, count), chosen)
    least, bits = log2(comb(size, count)), 8 * len(code)
    assert least <= bits
    assert bits <= size + 7
    assert bits / count <= 2 + log2(size / count) + 8 / count or share > 0.25


@pytest.mark.parametrize("size, count", [(40, 3), (40, 30), (1000, 10), (64, 1)])
def test_foreign_bytes_are_places_or_an_error(size, count):
    """Whoever sends them: no index out of range, no place twice."""
    rng, length, taken = np.random.default_rng(1), len(pack(np.arange(count), size)), 0
    for _ in range(500):
        code = rng.integers(0, 256, length, dtype=np.uint8)
        if rng.random() < 0.5:  # one bit of a good one is wrong
            code = pack(np.sort(rng.choice(size, count, replace=False)), size)
            code[rng.integers(length)] ^= np.uint8(1 << rng.integers(8))
        try:
            found = unpack(code, size, count)
        except RunError as error:
            assert "positions" in str(error)
            continue
        taken += 1
        assert len(set(found.tolist())) == count
        assert found.min() >= 0
        assert found.max() < size
    assert taken < 500
