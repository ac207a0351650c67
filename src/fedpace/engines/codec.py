"""Messages as bytes: one flat vector for each part of an adapter, one header.

The safetensors format, so no code can hide in a message. The values stand in the order of the
layout; the index set is not sent, because both ends derive it from the seed. Both ends know
beforehand which arrays a message has, of which type and size: a message is read by that, never by
what it says itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedpace.core.adapter import AdapterLayout, TensorSpec
from fedpace.core.errors import RunError
from fedpace.federation.hooks.hook import Values

_HEADER_SLACK = 256
"""Another release of safetensors may write a header that is so much longer, bytes."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a message looks like whose values are not known yet."""

    arrays: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
    """Shape and type of each tensor of the layout, and of what is beside them."""
    length: int
    """Bytes of the message, header included."""
    body: int
    """Bytes of its values, without the header."""


def encode(values: Values, layout: AdapterLayout) -> bytes:
    """Encode the tensors of a layout, and whatever else is in `values`.

    Args:
        values: arrays for tensors of the layout, of one type within A and B, and within the rest;
            other arrays, which may stand for tensors, travel as they are.
        layout: gives the order.

    Returns:
        A safetensors file with a flat array for each part, "lora", "head" and "merged", if there
        is any of it, and those others.
    """
    return save(_packed(values, layout))


def decode(data: bytes, layout: AdapterLayout, form: Form) -> dict[str, NDArray[Any]]:
    """Decode what `encode` made of values of a form.

    Raises:
        RunError: the bytes are not such a message.
    """
    if len(data) > form.length + _HEADER_SLACK:
        raise RunError(f"a message has {len(data)} bytes; {form.length} were to come")
    try:
        parts: Mapping[str, NDArray[Any]] = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        # The last three: types of values that NumPy has not.
        raise RunError(f"a message of {len(data)} bytes is not safetensors: {error}") from None
    expected = {name: (sum(sizes), kind) for name, (sizes, kind) in _parts(layout, form).items()}
    for name in expected | dict(parts):
        count, kind = expected.get(name, (0, None))
        found = parts.get(name, np.empty(0, kind))
        if found.shape != (count,) or (count and found.dtype != kind):
            raise RunError(
                f"a message has {found.size} values of {name!r}, of type {found.dtype}; it was to "
                f"have {count}" + (f" of {kind}" if kind else "")
            )
    values: dict[str, NDArray[Any]] = {}
    cursor = dict.fromkeys(expected, 0)
    specs = {t.name: t for t in layout.tensors}
    for name, (shape, _) in form.arrays.items():
        part, size = _part(specs[name]) if name in specs else name, int(np.prod(shape))
        if size:
            values[name] = parts[part][cursor[part] : cursor[part] + size].reshape(shape)
        cursor[part] += size
    return values


def form_of(values: Values, layout: AdapterLayout) -> Form:
    """Return the form of a message with values of these shapes and types."""
    parts = _packed(values, layout)
    named = {t.name: values[t.name] for t in layout.tensors if t.name in values} | dict(values)
    arrays = {name: (value.shape, value.dtype) for name, value in named.items()}
    return Form(arrays, len(save(parts)), sum(part.nbytes for part in parts.values()))


def _packed(values: Values, layout: AdapterLayout) -> dict[str, NDArray[Any]]:
    pieces: dict[str, list[NDArray[Any]]] = {}
    for t in layout.tensors:
        if t.name in values:
            pieces.setdefault(_part(t), []).append(values[t.name].ravel())
    parts = {part: np.concatenate(found) for part, found in pieces.items()}
    names = {t.name for t in layout.tensors}
    return parts | {name: np.ravel(v) for name, v in values.items() if name not in names}


def _parts(layout: AdapterLayout, form: Form) -> dict[str, tuple[list[int], np.dtype[Any]]]:
    specs = {t.name: t for t in layout.tensors}
    parts: dict[str, tuple[list[int], np.dtype[Any]]] = {}
    for name, (shape, kind) in form.arrays.items():
        part = _part(specs[name]) if name in specs else name
        parts.setdefault(part, ([], kind))[0].append(int(np.prod(shape)))
    return parts


def _part(spec: TensorSpec) -> str:
    return spec.role if spec.rank_axis is None else "lora"
