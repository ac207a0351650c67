"""Updates and sketched adapters as bytes: one flat LoRA vector, one flat head, one header.

The safetensors format, so no code can hide in a message. The values stand in the order of the
layout; the index set is not sent, because both ends derive it from the seed.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedpace.core.adapter import Adapter, AdapterLayout, Array, TensorSpec
from fedpace.core.errors import RunError


def encode(values: Adapter, layout: AdapterLayout) -> bytes:
    """Encode the tensors of k rank components (or of all) and the head.

    Args:
        values: k rows of every A, k columns of every B, the head whole.
        layout: of the full-size adapter.

    Returns:
        A safetensors file with the tensors "lora" and, if there is a head, "head".
    """
    lora = [values[t.name].ravel() for t in layout.tensors if t.rank_axis is not None]
    head = [values[t.name].ravel() for t in layout.tensors if t.rank_axis is None]
    parts: dict[str, Array] = {"lora": np.concatenate(lora)}
    if head:
        parts["head"] = np.concatenate(head)
    return save(parts)


def decode(data: bytes, layout: AdapterLayout, sketch_rank: int) -> dict[str, Array]:
    """Decode what `encode` made of `sketch_rank` components.

    Raises:
        RunError: the bytes are not such a message, or not of that rank and layout.
    """
    try:
        parts: Mapping[str, Array] = load(data)
    except SafetensorError as error:
        raise RunError(f"a message of {len(data)} bytes is not safetensors: {error}") from None
    expected = {"lora": layout.values_per_rank * sketch_rank, "head": layout.head_values}
    for name, count in expected.items():
        found = parts[name].size if name in parts else 0
        if found != count:
            raise RunError(
                f"a message has {found} values of {name!r}; rank {sketch_rank} needs {count}"
            )
    values: dict[str, Array] = {}
    cursor = {"lora": 0, "head": 0}
    for t in layout.tensors:
        part = "head" if t.rank_axis is None else "lora"
        shape = _sketched_shape(t, sketch_rank)
        size = int(np.prod(shape))
        values[t.name] = parts[part][cursor[part] : cursor[part] + size].reshape(shape)
        cursor[part] += size
    return values


@lru_cache(maxsize=4096)
def encoded_bytes(layout: AdapterLayout, sketch_rank: int) -> int:
    """Return the length of a message of `sketch_rank` components, header included, bytes."""
    blank = {
        t.name: np.zeros(_sketched_shape(t, sketch_rank), dtype=np.float32) for t in layout.tensors
    }
    return len(encode(blank, layout))


def _sketched_shape(spec: TensorSpec, sketch_rank: int) -> tuple[int, ...]:
    shape = list(spec.shape)
    if spec.rank_axis is not None:
        shape[spec.rank_axis] = sketch_rank
    return tuple(shape)
