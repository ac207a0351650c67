"""An asynchronous server: a fixed number of clients is always busy, and it steps after K arrivals.

Whoever arrives is replaced at once by a client drawn uniformly of those that are idle, on the
newest adapter (Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation",
AISTATS 2022, arXiv 2106.06639; K = 1 is Xie et al., arXiv 1903.03934).
"""

from dataclasses import replace

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.messages import ClientTask
from fedpace.core.plan import Plan
from fedpace.core.record import RoundRecord
from fedpace.core.rng import rng_for
from fedpace.federation.rounds import Federation, ServerState, excluded_clients, settle
from fedpace.federation.underway import OverlappingEngine, Underway

__all__ = ["concurrency", "run_buffer"]


def concurrency(plan: Plan) -> int:
    """Return how many clients are busy at once: the mean cohort of the plan, at least one."""
    return max(1, round(float(np.sum(plan.sampling_probability))))


def run_buffer(
    engine: OverlappingEngine, federation: Federation, state: ServerState
) -> tuple[RoundRecord, ServerState]:
    """Keep clients busy until the buffer is full, and step.

    A client begins at most once on the same adapter: its draws are those of client and round. So a
    buffer for more than there are is never full; the step is then of all who could begin.

    Args:
        engine: where the clients are.
        federation: what stays the same; its aggregation says how large the buffer is.
        state: what the last step left; the sum of its plan's q_n is how many are busy.

    Returns:
        The record of what was in the buffer, and the state for the next step.

    Raises:
        InputError: an aggregation without a buffer.
    """
    aggregation, index, plan = federation.aggregation, state.round_index, state.plan
    if aggregation.buffer is None:
        raise InputError(f"method {federation.method!r} has no buffer to fill; run it in rounds")
    start = aggregation.start(state.adapter, index, federation.seed)
    order = rng_for(federation.seed, "participation", index).permutation(len(plan)).tolist()
    excluded = excluded_clients(federation, state)
    began = engine.stepped()
    ended: list[Underway] = []
    underway = list(state.underway)
    tasks: list[ClientTask] = []
    missing: list[int] = []
    while sum(u.arrived for u in ended) < aggregation.buffer:
        while len(underway) < concurrency(plan):
            # The first idle client of a random order is a uniform draw of the idle ones.
            busy = excluded | {u.client for u in underway} | {t.client for t in tasks}
            chosen = next((n for n in order if n not in busy), None)
            if chosen is None:
                break
            rank = int(plan.sketch_rank[chosen])
            task = ClientTask(chosen, index, start, rank, federation.seed)
            tasks.append(task)
            begun = engine.start([task])
            underway += begun
            if not begun:
                missing.append(chosen)
        if not underway:
            break
        came, underway = engine.advance(index, underway, arrivals=1)
        ended += came
    trained = engine.train(tasks, [*ended, *underway])
    ended, underway = trained[: len(ended)], trained[len(ended) :]
    outcome = replace(engine.read(ended), round_seconds=engine.now() - began)
    return settle(
        federation, state, [u.task(federation.seed) for u in ended], start, outcome,
        lambda update, share: share,
        clock_seconds=engine.now(),
        missing=(*missing, *(u.client for u in ended if not u.arrived)),
        underway=underway,
    )  # fmt: skip
