"""Which of n places are taken, in a number of bits that n and their count alone give.

A bit for each place where that is shorter: from one place in four. Else the code of Elias
("Efficient Storage and Retrieval by Content and Address of Static Files", JACM 1974) and Fano: of
the sorted places the l = floor(log2(n / count)) lower bits stand as they are, and the upper ones as
a row of count ones, in which a zero stands for each step. That is at most 2 + log2(n / count) bits
a place; no code of so few places among many has less than 1.44 + log2(n / count).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpace.core.errors import RunError

Positions = NDArray[np.int64]


def pack(positions: Positions, size: int) -> NDArray[np.uint8]:
    """Return the code of sorted distinct places in 0..size-1; its length follows from their count.

    Example:
        >>> pack(np.array([1, 2, 11]), 12).tolist()  # a bit each: 01100000 0001
        [96, 16]
    """
    count = len(positions)
    if _is_map(size, count):
        taken = np.zeros(size, dtype=np.uint8)
        taken[positions] = 1
        return np.packbits(taken)
    low = _lower_bits(size, count)
    upper = np.zeros(_upper_length(size, count), dtype=np.uint8)
    upper[(positions >> low) + np.arange(count)] = 1
    lower = (positions[:, None] >> np.arange(low)) & 1
    return np.packbits(np.concatenate([upper, lower.ravel().astype(np.uint8)]))


def unpack(code: NDArray[Any], size: int, count: int) -> Positions:
    """Return the places that `pack` was given.

    Args:
        code: of the right length, from whoever.
        size: n.
        count: how many places.

    Raises:
        RunError: the code is not one of `count` places below `size`.
    """
    if _is_map(size, count):
        found = np.flatnonzero(np.unpackbits(code, count=size))
        if len(found) == count:
            return found
    else:
        low, ones = _lower_bits(size, count), _upper_length(size, count)
        bits = np.unpackbits(code, count=ones + low * count)
        found = np.flatnonzero(bits[:ones])
        if len(found) == count:
            lower = bits[ones:].reshape(count, low).astype(np.int64) << np.arange(low)
            places: Positions = ((found - np.arange(count)) << low) + lower.sum(axis=1)
            if np.all(np.diff(places) > 0) and places[-1] < size:
                return places
    raise RunError(f"the positions of an update are not those of {count} of {size} values")


def _is_map(size: int, count: int) -> bool:
    if count == 0:
        return True
    return size <= _upper_length(size, count) + count * _lower_bits(size, count)


def _upper_length(size: int, count: int) -> int:
    return count + ((size - 1) >> _lower_bits(size, count)) + 1


def _lower_bits(size: int, count: int) -> int:
    return (size // count).bit_length() - 1
