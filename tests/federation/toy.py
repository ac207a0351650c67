"""A federation small enough to enumerate: two modules, rank 4, a head, updates given by hand."""

import numpy as np

from fedpace.core.adapter import AdapterLayout, TensorSpec, take_components
from fedpace.core.messages import ClientTask, ClientUpdate, draw_components
from fedpace.core.plan import Decision, Plan

LAYOUT = AdapterLayout(
    rank=4,
    tensors=(
        TensorSpec("one.A", (4, 3), "A"),
        TensorSpec("one.B", (5, 4), "B"),
        TensorSpec("two.A", (4, 2), "A"),
        TensorSpec("two.B", (3, 4), "B"),
        TensorSpec("head", (2, 3), "head"),
    ),
)


def blank():
    return {t.name: np.zeros(t.shape, dtype=np.float32) for t in LAYOUT.tensors}


def random_adapter(seed):
    rng = np.random.default_rng(seed)
    return {t.name: rng.normal(size=t.shape).astype(np.float32) for t in LAYOUT.tensors}


def make_plan(q, k, draws=None):
    q = np.asarray(q, dtype=np.float64)
    decision = Decision(q, np.asarray(k, dtype=np.int64), draws)
    return Plan("test", np.arange(len(q)).astype(str), decision)


def sketched_update(client, full, components):
    """The update of a client whose full-rank update is `full`, seen through one index set."""
    components = np.asarray(components, dtype=np.int64)
    return ClientUpdate(client, 0, components, take_components(full, LAYOUT, components), 0.0)


def towards(target, rate=0.3):
    """A trainer that moves its components towards `target`: no torch, known answer."""

    def train(tasks: list[ClientTask]) -> list[ClientUpdate]:
        updates = []
        for t in tasks:
            chosen = draw_components(t.seed, t.round_index, t.client, LAYOUT.rank, t.sketch_rank)
            step = {n: np.float32(rate) * (target[n] - t.adapter[n]) for n in target}
            delta = take_components(step, LAYOUT, chosen)
            updates.append(ClientUpdate(t.client, t.round_index, chosen, delta, 1.0 + t.client))
        return updates

    return train
