"""Uploads of fewer bits: each value is rounded on the client and read back at the server."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from fedpace.core.adapter import Array
from fedpace.core.messages import ClientTask
from fedpace.core.rng import rng_for
from fedpace.federation.hooks.hook import UpdateHook, Values
from fedpace.federation.hooks.quantise import (
    from_bfloat16,
    from_int4,
    from_int8,
    to_bfloat16,
    to_int4,
    to_int8,
)

UploadDtype = Literal["float32", "bfloat16", "int8", "int4"]
"""How a value travels on the uplink."""
UPLOAD_BITS: dict[UploadDtype, int] = {"float32": 32, "bfloat16": 16, "int8": 8, "int4": 4}

Shapes = Callable[[int], Mapping[str, tuple[int, ...]]]
"""Sketch rank -> the shape of each array that is rounded."""

_SCALES = "scale"


def rounding(upload_dtype: UploadDtype, shapes: Shapes) -> list[UpdateHook]:
    """Return what rounds updates; nothing where they travel as they are.

    "bfloat16" rounds to the nearest; "int8" and "int4" at random, without bias, from the client's
    stream, and send a scale for each array besides.

    Args:
        upload_dtype: how each value is sent.
        shapes: of the arrays of values; whatever else an update has travels as it is.
    """
    if upload_dtype == "float32":
        return []
    if upload_dtype == "bfloat16":
        return [_nearest(shapes)]
    to, back = {"int8": (to_int8, _whole_int8), "int4": (to_int4, from_int4)}[upload_dtype]
    return [_scaled(to, back, shapes)]


def _whole_int8(levels: Any, scale: float, size: int) -> Array:
    return from_int8(levels, scale)


def _nearest(shapes: Shapes) -> UpdateHook:
    def client(values: Values, task: ClientTask) -> Values:
        named = shapes(task.sketch_rank)
        return {**values, **{name: to_bfloat16(values[name]) for name in named}}

    def arrival(values: Values, task: ClientTask) -> Values:
        named = shapes(task.sketch_rank)
        return {**values, **{name: from_bfloat16(values[name]) for name in named}}

    return UpdateHook("rounding", client=client, arrival=arrival)


def _scaled(
    to: Callable[[Array, np.random.Generator], tuple[Any, float]],
    back: Callable[[Any, float, int], Array],
    shapes: Shapes,
) -> UpdateHook:
    def client(values: Values, task: ClientTask) -> Values:
        rng = rng_for(task.seed, "noise", task.round_index, task.client)
        rounded: dict[str, Any] = {}
        scales = []
        for name in shapes(task.sketch_rank):
            rounded[name], scale = to(values[name].ravel(), rng)
            scales.append(scale)
        return {**values, **rounded, _SCALES: np.array(scales, dtype=np.float32)}

    def arrival(values: Values, task: ClientTask) -> Values:
        found = {name: value for name, value in values.items() if name != _SCALES}
        named = shapes(task.sketch_rank)
        for (name, shape), scale in zip(named.items(), values[_SCALES].tolist(), strict=True):
            found[name] = back(values[name], scale, int(np.prod(shape))).reshape(shape)
        return found

    return UpdateHook("rounding", client=client, arrival=arrival)
