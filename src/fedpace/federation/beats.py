r"""Rounds that overlap: the server moves at beats, and nobody is waited for.

At each beat every idle client starts with probability q_n, independently of all others, on the
adapter of that beat; its update counts in the beat after its arrival, with the weight

.. math:: w_n = a_n \Bigl(\frac{1}{q_n p_n} + b_n - 1\Bigr)

where b_n is the number of beats that this update took, from its start to the beat that counts it.
A client's updates are a renewal process: from one to the next it is idle for
(1 - q_n p_n)/(q_n p_n) beats on average and busy for b_n, so w_n is a_n times a cycle whose mean
length is that of the process, and by the renewal-reward theorem the mean weight of a client in a
beat tends to a_n, for any law of its waits, which nobody needs to know. b_n = 1 for all is the
synchronous round. A plan with a bounded bias has its `aggregation_weight` in the place of a_n.

Where a client was asked and nothing came of it, its cycle is longer by the beats, but the first,
for which it seemed to be busy; the next update that counts has the weight of these, too.
"""

from dataclasses import replace

from fedpace.core.errors import InputError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.record import RoundRecord
from fedpace.federation.participation import sample_participants
from fedpace.federation.rounds import Federation, ServerState, excluded_clients, settle
from fedpace.federation.underway import OverlappingEngine

__all__ = ["run_beat"]


def run_beat(
    engine: OverlappingEngine, federation: Federation, state: ServerState
) -> tuple[RoundRecord, ServerState]:
    """Let idle clients start, and take what arrives until the next beat.

    Args:
        engine: where the clients are.
        federation: what stays the same; its aggregation needs no barrier.
        state: what the last beat left; its plan has the beat.

    Returns:
        The record of what was counted, in which each participant carries the round it started in,
        and the state for the next beat.

    Raises:
        InputError: a plan without a beat or with draws, or an aggregation that needs a barrier.
    """
    plan, index, aggregation = state.plan, state.round_index, federation.aggregation
    if plan.beat_seconds is None or plan.draws is not None:
        raise InputError(
            f"the plan of {plan.planner!r} draws its cohort for rounds that wait for all; "
            "set [training] schedule = 'synchronous'"
        )
    if not aggregation.overlaps:
        raise InputError(
            f"method {federation.method!r} aggregates what was trained on one adapter, so it has "
            "to wait for all; set [training] schedule = 'synchronous'"
        )
    joined = sample_participants(plan, index, federation.seed)
    inverse = dict(zip(joined.client.tolist(), joined.inverse_probability.tolist(), strict=True))
    away = excluded_clients(federation, state) | {u.client for u in state.underway}
    start = aggregation.start(state.adapter, index, federation.seed)
    tasks = [
        ClientTask(n, index, start, int(plan.sketch_rank[n]), federation.seed)
        for n in inverse
        if n not in away
    ]
    began = engine.stepped()
    begun = [replace(u, inverse_probability=inverse[u.client]) for u in engine.start(tasks)]
    underway = engine.train(tasks, [*state.underway, *begun])
    ended, left = engine.advance(index, underway, until=engine.stepped() + plan.beat_seconds)
    outcome = replace(engine.read(ended), round_seconds=engine.now() - began)
    chance = {u.client: u.inverse_probability for u in ended}

    def weight(update: ClientUpdate, share: float) -> float:
        n = update.client
        busy = index - update.round_index + state.in_vain.get(n, 0)
        # As in a round that waits, to the bit, where nothing is late.
        return share * chance[n] / float(federation.availability[n]) + share * busy

    took = {u.client for u in begun}
    record, after = settle(
        federation, state, [u.task(federation.seed) for u in ended], start, outcome, weight,
        clock_seconds=engine.now(),
        missing=(
            *(t.client for t in tasks if t.client not in took),
            *(u.client for u in ended if not u.arrived),
        ),
        underway=left,
    )  # fmt: skip
    in_vain = dict(state.in_vain)
    for u in ended:
        if not u.arrived:
            in_vain[u.client] = in_vain.get(u.client, 0) + index - u.started_round
        else:
            in_vain.pop(u.client, None)
    return record, replace(after, in_vain=in_vain)
