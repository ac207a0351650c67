"""CA2FL: a buffered asynchronous server that calibrates by the last update of every client.

Wang, Cao, Wu, Chen and Chen, "Tackling the Data Heterogeneity in Asynchronous Federated Learning
with Cached Update Calibration", ICLR 2024.
"""

from dataclasses import replace

import numpy as np

from fedpace.core.adapter import Adapter, AdapterLayout, add_components, squared_norms, zeros
from fedpace.core.errors import InputError
from fedpace.core.profile import Floats
from fedpace.core.sketch import LEADING
from fedpace.federation.aggregation import Aggregate, Aggregation, Memory, Returned, aggregate
from fedpace.federation.hooks.fedvarp import MAX_BYTES, most_clients


def ca2fl(layout: AdapterLayout, buffer: int, data_weight: Floats) -> Aggregation:
    r"""Move along :math:`\sum_n a_n h_n + \sum_{n \in S} p_n (\Delta_n - h_n)`, S the buffer.

    h_n is the last update of client n, zero before its first; then h_n becomes Delta_n. Ours: a_n
    are the data weights and p_n those over those in the buffer; where all clients hold the same,
    they are the paper's 1/N and 1/K.

    Args:
        layout: of the adapter.
        buffer: K.
        data_weight: a_n, shape (N,).

    Raises:
        InputError: an adapter for each client would be too much.
    """
    clients = len(data_weight)
    if clients > most_clients(layout):
        raise InputError(
            f"method 'ca2fl' keeps an adapter for each of {clients} clients, more than "
            f"{MAX_BYTES >> 30} GiB; lower [lora] rank, or leave it out"
        )
    share = data_weight.astype(np.float32)

    def begin(initial: Adapter) -> tuple[Adapter, Memory]:
        return initial, {
            t.name: np.zeros((clients, *t.shape), dtype=np.float32) for t in layout.tensors
        }

    def grow(memory: Memory) -> Memory:
        new = clients - len(next(iter(memory.values())))
        return {
            name: np.append(h, np.zeros((new, *h.shape[1:]), dtype=np.float32), axis=0)
            for name, h in memory.items()
        }

    def calibrate(adapter: Adapter, memory: Memory, back: Returned) -> tuple[Aggregate, Memory]:
        weights = back.share()
        result = aggregate(back.updates, weights, layout, LEADING)
        cached = {name: np.tensordot(share, h, 1) for name, h in memory.items()}
        moved = {name: x + cached[name] for name, x in result.update.items()}
        kept = {name: h.copy() for name, h in memory.items()}
        for update, weight in zip(back.updates, weights, strict=True):
            full = zeros(layout.tensors)
            add_components(
                full, update.delta, layout, update.components, lora_weight=1.0, head_weight=1.0
            )
            for name, x in full.items():
                moved[name] -= np.float32(weight) * memory[name][update.client]
                kept[name][update.client] = x
        return replace(result, update=moved, squared_norms=squared_norms(moved, layout)), kept

    return Aggregation(LEADING, calibrate, begin=begin, grow=grow, buffer=buffer)
