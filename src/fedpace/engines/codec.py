"""Updates and sketched adapters as bytes: one flat LoRA vector, one flat head, one header.

The safetensors format, so no code can hide in a message. The values stand in the order of the
layout; the index set is not sent, because both ends derive it from the seed. Values may be sent
with fewer bits (`quantise`); a message says by the type of its arrays how to read them.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedpace.core.adapter import Adapter, AdapterLayout, Array, TensorSpec
from fedpace.core.errors import InputError, RunError
from fedpace.core.profile import ValueType
from fedpace.engines.quantise import (
    from_bfloat16,
    from_int8,
    to_bfloat16,
    to_int8,
)

_PARTS = ("lora", "head")
_HEADER_SLACK = 256
"""The header of another value type may be so much longer, bytes."""


def encode(
    values: Adapter,
    layout: AdapterLayout,
    value_type: ValueType = "float32",
    rng: np.random.Generator | None = None,
) -> bytes:
    """Encode the tensors of k rank components (or of all) and the head.

    Args:
        values: k rows of every A, k columns of every B, the head whole.
        layout: of the full-size adapter.
        value_type: how each value is sent; "bfloat16" rounds to the nearest, "int8" at random.
        rng: what "int8" draws from.

    Returns:
        A safetensors file with the tensors "lora" and, if there is a head, "head"; for "int8" also
        "scale", a number for each tensor of the layout.
    """
    pieces: dict[str, list[Any]] = {part: [] for part in _PARTS}
    scales = []
    for t in layout.tensors:
        flat: Any = values[t.name].ravel()
        if value_type == "bfloat16":
            flat = to_bfloat16(flat)
        elif value_type == "int8":
            if rng is None:
                raise InputError("an int8 message needs a generator to round with; give rng")
            flat, scale = to_int8(flat, rng)
            scales.append(scale)
        pieces[_part(t)].append(flat)
    parts = {part: np.concatenate(found) for part, found in pieces.items() if found}
    if scales:
        parts["scale"] = np.array(scales, dtype=np.float32)
    return save(parts)


def decode(data: bytes, layout: AdapterLayout, sketch_rank: int) -> dict[str, Array]:
    """Decode what `encode` made of `sketch_rank` components.

    Raises:
        RunError: the bytes are not such a message, or not of that rank and layout.
    """
    most = encoded_bytes(layout, sketch_rank) + _HEADER_SLACK
    if len(data) > most:
        raise RunError(f"a message has {len(data)} bytes; rank {sketch_rank} takes {most} at most")
    try:
        parts: Mapping[str, Array] = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        # The last three: types of values that NumPy has not.
        raise RunError(f"a message of {len(data)} bytes is not safetensors: {error}") from None
    expected = {"lora": layout.values_per_rank * sketch_rank, "head": layout.head_values}
    for name, count in expected.items():
        found = parts[name].size if name in parts else 0
        if found != count or (found and parts[name].ndim != 1):
            raise RunError(
                f"a message has {found} values of {name!r}; rank {sketch_rank} needs {count}"
            )
    scales = _scales(parts, len(layout.tensors))
    values: dict[str, Array] = {}
    cursor = dict.fromkeys(_PARTS, 0)
    for t, scale in zip(layout.tensors, scales, strict=True):
        part = _part(t)
        shape = _sketched_shape(t, sketch_rank)
        size = int(np.prod(shape))
        flat = parts[part][cursor[part] : cursor[part] + size]
        values[t.name] = _as_float32(flat, scale).reshape(shape)
        cursor[part] += size
    return values


@lru_cache(maxsize=4096)
def encoded_bytes(
    layout: AdapterLayout, sketch_rank: int, value_type: ValueType = "float32"
) -> int:
    """Return the length of a message of `sketch_rank` components, header included, bytes."""
    blank = {
        t.name: np.zeros(_sketched_shape(t, sketch_rank), dtype=np.float32) for t in layout.tensors
    }
    return len(encode(blank, layout, value_type, np.random.default_rng(0)))


def _part(spec: TensorSpec) -> str:
    return "head" if spec.rank_axis is None else "lora"


def _scales(parts: Mapping[str, Array], count: int) -> Sequence[float]:
    scale = parts.get("scale", np.ones(count, dtype=np.float32))
    if scale.shape != (count,) or scale.dtype != np.float32:
        raise RunError(f"a message has {scale.size} scales; the adapter has {count} tensors")
    return scale.tolist()  # type: ignore[no-any-return]


def _as_float32(flat: Any, scale: float) -> Array:
    if flat.dtype == np.float32:
        same: Array = flat
        return same
    if flat.dtype == np.uint16:
        return from_bfloat16(flat)
    if flat.dtype == np.int8:
        return from_int8(flat, scale)
    raise RunError(f"a message has values of type {flat.dtype}; known are float32, uint16, int8")


def _sketched_shape(spec: TensorSpec, sketch_rank: int) -> tuple[int, ...]:
    shape = list(spec.shape)
    if spec.rank_axis is not None:
        shape[spec.rank_axis] = sketch_rank
    return tuple(shape)
