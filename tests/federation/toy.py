"""A federation small enough to enumerate: two modules, rank 4, a head, updates given by hand."""

import numpy as np

from fedpace.core.adapter import AdapterLayout, TensorSpec, take_components
from fedpace.core.messages import ClientTask, ClientUpdate, draw_components
from fedpace.core.plan import Decision, Plan
from fedpace.core.sketch import RESIDUAL
from fedpace.engines.exchange import Exchange
from fedpace.federation.aggregation import MethodContext
from fedpace.federation.hooks.rounding import rounding
from fedpace.federation.methods.sketched import sketched

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


def context(sketch=RESIDUAL, layout=LAYOUT, share=()):
    """What methods are built from, for clients of these data weights."""
    return MethodContext(layout, sketch, np.asarray(share, dtype=np.float64))


def exchange(sketch=RESIDUAL, upload_dtype="float32", aggregation=None, initial=None):
    """What travels for our method, or another one."""
    method = aggregation or sketched(context(sketch))
    hooks = tuple(rounding(upload_dtype, LAYOUT.only(method.trained).shapes))
    return Exchange(LAYOUT, initial or random_adapter(1), method, hooks)


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


def follower(method, target, rate=0.3):
    """A trainer for any method: its index sets, what it trains; what is merged changes the step."""

    def train(tasks: list[ClientTask]) -> list[ClientUpdate]:
        updates = []
        for t in tasks:
            chosen = method.sketch.components(t, LAYOUT.rank)
            merged = sum(float(v.sum()) for n, v in sorted(t.adapter.items()) if "merged" in n)
            seen = take_components(t.adapter, LAYOUT, chosen)
            goal = take_components(target, LAYOUT, chosen)
            delta = {
                x.name: np.float32(rate) * (goal[x.name] - seen[x.name] + np.float32(merged / 50))
                for x in LAYOUT.only(method.trained).tensors
            }
            updates.append(ClientUpdate(t.client, t.round_index, chosen, delta, 1.0 + t.client))
        return updates

    return train
