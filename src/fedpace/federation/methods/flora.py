"""FLoRA: adapters are stacked, which sums their products without noise, and merged into the base.

Wang et al., "FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous Low-Rank
Adaptations", NeurIPS 2024, arXiv 2409.05976.
"""

from dataclasses import replace

import numpy as np

from fedpace.core.adapter import MERGED, Adapter, AdapterLayout, Array, zeros
from fedpace.core.rng import rng_for
from fedpace.core.sketch import LEADING
from fedpace.federation.aggregation import (
    Aggregate,
    Aggregation,
    Memory,
    MethodContext,
    Returned,
    aggregate,
)
from fedpace.federation.methods.products import local_adapters


def flora(context: MethodContext) -> Aggregation:
    r"""Merge :math:`\sum_n p_n B_n A_n` into the base; every round starts from a fresh LoRA.

    p_n are the data weights over those of the participants. The sum over rounds is kept in the
    adapter, dense, under `fedpace.core.adapter.MERGED`; the adapter's own A and B stay as they
    were at the start, with a product of zero: that of an adapter to start from is merged first.

    Ours: A is redrawn for each round, the same for all clients, from the seed, so that it is not
    sent; its entries are uniform with the variance of the initial draw. Clients receive what is
    merged so far, dense, and the head. In the paper they receive the stacked adapters of every
    round and merge them themselves, for which everyone has to listen, also who sits rounds out;
    a client that trains in one round of five would so receive about as much.
    """
    layout = context.layout

    def begin(initial: Adapter) -> tuple[Adapter, Memory]:
        begun = {**initial, **zeros(layout.merged)}
        for a, b in layout.modules:  # what a run starts from, where it is not a draw
            product = initial[b.name].reshape(-1, layout.rank) @ initial[a.name].reshape(
                layout.rank, -1
            )
            if product.any():
                begun |= {_merged(a.name): product, b.name: np.zeros_like(initial[b.name])}
        return begun, {}

    def start(adapter: Adapter, round_index: int, seed: int) -> Adapter:
        rng = rng_for(seed, "adapter", 2, round_index)
        fresh = {t.name: _drawn_like(adapter[t.name], rng)
                 for t in layout.tensors if t.role != "head"}  # fmt: skip
        return {**adapter, **fresh}

    def merge(adapter: Adapter, memory: Memory, back: Returned) -> tuple[Aggregate, Memory]:
        weights = back.share() if back.updates else []
        summed = aggregate(back.updates, weights, layout, LEADING)
        update = zeros(layout.tensors)
        update |= {name: np.zeros_like(adapter[name]) for name in adapter if name not in update}
        if not back.updates:
            return replace(summed, update=update), memory
        local = local_adapters(back, layout)
        squared = 0.0
        for a, b in layout.modules:
            columns, rows = local.stacked(a, b, weights)
            product = columns @ rows
            update[_merged(a.name)] = product
            squared += float(np.sum(product.astype(np.float64) ** 2))
        update |= {t.name: summed.update[t.name] for t in layout.tensors if t.role == "head"}
        result = replace(summed, update=update, squared_norms=(squared, summed.squared_norms[1]))
        return result, memory

    return Aggregation(
        LEADING, merge, begin=begin, start=start,
        received=AdapterLayout(layout.rank, (*layout.merged, *layout.only(("head",)).tensors)),
    )  # fmt: skip


def _merged(name: str) -> str:
    return MERGED + name


def _drawn_like(initial: Array, rng: np.random.Generator) -> Array:
    """Entries uniform on [-b, b] with the mean square of the initial ones; zero stays zero."""
    bound = float(np.sqrt(3.0 * np.mean(initial.astype(np.float64) ** 2)))
    return rng.uniform(-bound, bound, initial.shape).astype(np.float32)
