"""Sparse uploads: clients train everything and send their largest changes alone.

Kuo, Raje, Rajesh and Smith, "Federated LoRA with Sparse Communication", 2024, arXiv 2406.05233
(FLASC): of all that a client trained, adapter and head in one vector, the entries that changed most
are sent; at the server the others are zero. Theirs besides, and left out here: a client also
receives the largest entries of the global adapter alone, tiers of clients with densities of their
own, and a density that falls over the rounds.

Ours: what is sent is counted with its positions, of which the paper says nothing.
"""

import numpy as np

from fedpace.core.adapter import AdapterLayout, Array
from fedpace.core.messages import ClientTask
from fedpace.federation.hooks.hook import UpdateHook, Values
from fedpace.federation.hooks.positions import Positions, pack, unpack

KEPT = "kept"
_POSITIONS = "positions"


def sparse(density: float, sent: AdapterLayout) -> UpdateHook:
    """Return what sends the largest changes and their positions, and puts them back.

    It is biased: a small change is never sent, and nobody remembers it.

    Args:
        density: share of the values that is sent, in (0, 1]; rounded down, at least one.
        sent: layout of what travels.
    """

    def client(values: Values, task: ClientTask) -> Values:
        flat = np.concatenate([values[t.name].ravel() for t in sent.tensors])
        (count,) = kept_shapes(density, sent, task.sketch_rank)[KEPT]
        largest = _largest(flat, count)
        return {KEPT: flat[largest], _POSITIONS: pack(largest, len(flat))}

    def arrival(values: Values, task: ClientTask) -> Values:
        shapes = sent.shapes(task.sketch_rank)
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        flat = np.zeros(sum(sizes), dtype=np.float32)
        flat[unpack(values[_POSITIONS], len(flat), len(values[KEPT]))] = values[KEPT]
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return {n: p.reshape(s) for (n, s), p in zip(shapes.items(), parts, strict=True)}

    return UpdateHook("sparse", client=client, arrival=arrival)


def kept_shapes(density: float, sent: AdapterLayout, sketch_rank: int) -> dict[str, tuple[int]]:
    """Return the shape of the values that are sent of an update, by the array's name."""
    size = sketch_rank * sent.values_per_rank + sent.head_values
    return {KEPT: (min(size, max(1, int(density * size))),)}


def _largest(values: Array, count: int) -> Positions:
    """Positions of the largest in magnitude, sorted; of equals the first, NaN above all."""
    if count == 0:
        return np.arange(0)
    size = np.abs(values)
    size[np.isnan(size)] = np.inf
    least = np.partition(size, len(size) - count)[len(size) - count]
    larger = np.flatnonzero(size > least)
    equal = np.flatnonzero(size == least)[: count - len(larger)]
    return np.sort(np.concatenate([larger, equal]))
