"""Values of 16, 8 and 4 bits for the uplink."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpace.core.adapter import Array

LEVELS = 127
LEVELS_INT4 = 7


def to_bfloat16(values: Array) -> NDArray[np.uint16]:
    """Round to the nearest bfloat16, ties to even; its bits as uint16, which NumPy can hold.

    bfloat16 is the upper half of float32. NaN stays NaN.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    upper = ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), upper)


def from_bfloat16(bits: NDArray[np.uint16]) -> Array:
    """Return the float32 that has these upper bits."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_int8(values: Array, rng: np.random.Generator) -> tuple[NDArray[np.int8], float]:
    """Round at random to 255 levels, without bias; see `_levels`.

    Args:
        values: x, shape (n,).
        rng: draws u.

    Returns:
        q, shape (n,), and s; where a value is not finite s is NaN, and so is what is read back.
    """
    return _levels(values, rng, LEVELS)


def from_int8(levels: NDArray[np.int8], scale: float) -> Array:
    """Return scale times level."""
    return levels.astype(np.float32) * np.float32(scale)


def to_int4(values: Array, rng: np.random.Generator) -> tuple[NDArray[np.uint8], float]:
    """Round at random to 15 levels, without bias, two of them a byte; see `_levels`.

    Args:
        values: x, shape (n,).
        rng: draws u.

    Returns:
        q + 8, the former of two in the lower half of a byte, shape (ceil(n/2),), and s; where a
        value is not finite s is NaN, and so is what is read back.
    """
    found, scale = _levels(values, rng, LEVELS_INT4)
    halves = np.zeros(2 * ((len(values) + 1) // 2), dtype=np.uint8)
    halves[: len(values)] = (found + 8).astype(np.uint8)
    return halves[0::2] | (halves[1::2] << np.uint8(4)), scale


def from_int4(pairs: NDArray[np.uint8], scale: float, count: int) -> Array:
    """Return scale times level of the first `count` values, shape (count,)."""
    halves = np.stack([pairs & np.uint8(15), pairs >> np.uint8(4)], axis=1).ravel()[:count]
    return (halves.astype(np.float32) - np.float32(8)) * np.float32(scale)


def _levels(values: Array, rng: np.random.Generator, most: int) -> tuple[NDArray[np.int8], float]:
    r"""Round at random to multiples of a scale, without bias.

    With :math:`s = \max_i |x_i| / L`, :math:`q_i = \lfloor x_i / s + u_i \rfloor` and u_i uniform
    on [0, 1), the mean of s q_i is x_i, and its error is below s. (Alistarh et al., "QSGD", NeurIPS
    2017, with levels per tensor and the largest value in the place of the norm.)
    """
    # The scale travels as float32: divide by what the other end multiplies with.
    scale = float(np.max(np.abs(values), initial=np.float32(0)) / np.float32(most))
    drawn = rng.random(len(values), dtype=np.float32)
    if scale == 0 or not np.isfinite(scale):
        return np.zeros(len(values), dtype=np.int8), scale if scale == 0 else float("nan")
    level: Any = np.floor(values.astype(np.float64) / scale + drawn)
    return np.clip(level, -most, most).astype(np.int8), scale
