"""Server memory: each client's last update as a control variate of the sum.

Jhunjhunwala et al., "FedVARP: Tackling the Variance Due to Partial Client Participation in
Federated Learning", UAI 2022, arXiv 2207.14130; SAGA's idea, with the memory at the server.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fedpace.core.adapter import (
    Adapter,
    AdapterLayout,
    Array,
    Components,
    squared_norms,
    take_components,
)
from fedpace.core.errors import InputError
from fedpace.core.messages import ClientUpdate
from fedpace.core.sketch import Sketch
from fedpace.federation.aggregation import Aggregate, Memory, MethodContext, Returned
from fedpace.federation.hooks.hook import Sum, UpdateHook

MAX_BYTES = 8 << 30
"""Most memory; it grows with the clients and is copied in every round and every checkpoint."""


def fedvarp(context: MethodContext, fraction: float) -> UpdateHook:
    r"""Move along :math:`\sum_n \frac{a_n I_n}{q_n} (\Delta_n - c S_n y_n) + c \sum_n a_n y_n`.

    Delta_n is the update with its factor r/k. y_n is what is remembered of client n: for each rank
    component, what the last update that trained it moved (zero at first); S_n picks the components
    trained now, times r/k. The mean over who joins and over the index sets is that without memory,
    whatever y is; the variance falls as far as an update resembles the one before. An empty round
    moves by the last term alone.

    Ours: unequal probabilities, sketches (the paper has neither), and c below 1, because with a
    large a_n/q_n an outdated y adds noise.

    Args:
        context: of the method around which it stands; its data weights are a_n.
        fraction: c, in (0, 1].

    Raises:
        InputError: an adapter for each client would be too much.
    """
    layout, sketch, data_weight = context.layout, context.sketch, context.data_weight
    if len(data_weight) > most_clients(layout):
        size = len(data_weight) * _bytes(layout)
        raise InputError(
            f"[training] server_memory = {fraction:g} keeps an adapter for each of "
            f"{len(data_weight)} clients, {size / 2**30:.1f} GiB, above {MAX_BYTES >> 30}; set it "
            "to 0, or lower [lora] rank"
        )
    share = data_weight.astype(np.float32)

    def begin() -> Memory:
        return {t.name: np.zeros((len(share), *t.shape), np.float32) for t in layout.tensors}

    def grow(memory: Memory) -> Memory:
        new = len(share) - len(next(iter(memory.values())))
        return {
            name: np.append(y, np.zeros((new, *y.shape[1:]), np.float32), axis=0)
            for name, y in memory.items()
        }

    def correct(memory: Memory, back: Returned, add_up: Sum) -> tuple[Aggregate, Memory]:
        corrected = []
        for update in back.updates:
            known = _of(memory, update.client, layout, update.components)
            scale = _own_scale(layout, update, sketch)
            delta = {name: value - np.float32(fraction * scale[name]) * known[name]
                     for name, value in update.delta.items()}  # fmt: skip
            corrected.append(replace(update, delta=delta))
        result = add_up(replace(back, updates=corrected))
        moved = {
            name: value + np.float32(fraction) * np.tensordot(share, memory[name], 1)
            for name, value in result.update.items()
        }
        result = replace(result, update=moved, squared_norms=squared_norms(moved, layout))
        return result, _remembered(memory, back, layout, sketch)

    return UpdateHook(
        "server_memory",
        server=correct,
        begin=begin,
        grow=grow,
        most_clients=most_clients(layout),
    )


def most_clients(layout: AdapterLayout) -> int:
    """Return how many clients can be remembered."""
    return MAX_BYTES // _bytes(layout)


def _bytes(layout: AdapterLayout) -> int:
    return 4 * sum(int(np.prod(t.shape)) for t in layout.tensors)


def _of(memory: Memory, client: int, layout: AdapterLayout, components: Components) -> Adapter:
    """A client's y, as `take_components` shapes an adapter."""
    return take_components({n: y[client] for n, y in memory.items()}, layout, components)


def _own_scale(layout: AdapterLayout, update: ClientUpdate, sketch: Sketch) -> Mapping[str, float]:
    """The factor r/k that a scaled update has from its forward pass, by tensor; else 1."""
    ratio = sketch.client_scale(len(update.components), layout.rank)
    return {t.name: 1.0 if t.role == "head" else ratio for t in layout.tensors}


def _remembered(
    memory: Memory, back: Returned, layout: AdapterLayout, sketch: Sketch
) -> dict[str, Array]:
    after = {name: value.copy() for name, value in memory.items()} if back.updates else memory
    for update in back.updates:
        scale = _own_scale(layout, update, sketch)
        for t in layout.tensors:
            value = update.delta[t.name] / np.float32(scale[t.name])
            if t.rank_axis is None:
                after[t.name][update.client] = value
            elif t.rank_axis == 0:
                after[t.name][update.client, update.components] = value
            else:
                after[t.name][update.client][:, update.components] = value
    return dict(after)
