"""Uploads of fewer bits: each value is rounded on the client and read back at the server."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from fedpace.core.adapter import AdapterLayout, Array
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

_SCALES = "scale"


def rounding(upload_dtype: UploadDtype, sent: AdapterLayout) -> list[UpdateHook]:
    """Return what rounds updates; nothing where they travel as they are.

    "bfloat16" rounds to the nearest; "int8" and "int4" at random, without bias, from the client's
    stream, and send a scale for each tensor besides.

    Args:
        upload_dtype: how each value is sent.
        sent: layout of what travels.
    """
    if upload_dtype == "float32":
        return []
    if upload_dtype == "bfloat16":
        return [
            UpdateHook(
                "rounding",
                client=lambda values, task: {n: to_bfloat16(v) for n, v in values.items()},
                arrival=lambda values, task: {n: from_bfloat16(v) for n, v in values.items()},
            )
        ]
    to, back = {"int8": (to_int8, _whole_int8), "int4": (to_int4, from_int4)}[upload_dtype]
    return [_scaled(to, back, sent)]


def _whole_int8(levels: Any, scale: float, size: int) -> Array:
    return from_int8(levels, scale)


def _scaled(
    to: Callable[[Array, np.random.Generator], tuple[Any, float]],
    back: Callable[[Any, float, int], Array],
    sent: AdapterLayout,
) -> UpdateHook:
    def client(values: Values, task: ClientTask) -> Values:
        rng = rng_for(task.seed, "noise", task.round_index, task.client)
        rounded: dict[str, Any] = {}
        scales = []
        for t in sent.tensors:
            rounded[t.name], scale = to(values[t.name].ravel(), rng)
            scales.append(scale)
        return {**rounded, _SCALES: np.array(scales, dtype=np.float32)}

    def arrival(values: Values, task: ClientTask) -> Values:
        found = {}
        for t, scale in zip(sent.tensors, values[_SCALES].tolist(), strict=True):
            shape = t.of_rank(task.sketch_rank)
            found[t.name] = back(values[t.name], scale, int(np.prod(shape))).reshape(shape)
        return found

    return UpdateHook("rounding", client=client, arrival=arrival)
