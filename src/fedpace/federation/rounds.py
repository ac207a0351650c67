"""One round of federated LoRA with independent sampling: state in, state and record out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedpace.core.adapter import Adapter, AdapterLayout, Array
from fedpace.core.errors import RunError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.plan import Plan
from fedpace.core.privacy import Privacy
from fedpace.core.profile import Floats
from fedpace.core.record import ParticipantRecord, RoundRecord
from fedpace.federation.aggregation import Aggregate, Aggregation, Memory, Returned
from fedpace.federation.checks import Checks, Watch, check_updates
from fedpace.federation.divergence import fault_of_step, fault_of_updates
from fedpace.federation.engine import Engine, RoundOutcome
from fedpace.federation.participation import sample_participants
from fedpace.federation.privacy import charged, nothing_spent, told_of
from fedpace.federation.server_optimizer import OptimizerState, ServerOptimizer
from fedpace.federation.underway import Underway


@dataclass(frozen=True, slots=True, eq=False)
class Federation:
    """What stays the same over a run."""

    method: str
    layout: AdapterLayout
    data_weight: Floats
    """a_n, shape (N,), sums to 1."""
    availability: Floats
    """Probability that an invited client answers, shape (N,)."""
    aggregation: Aggregation
    server_optimizer: ServerOptimizer
    seed: int
    checks: Checks | None = None
    """What arrives is checked before it is used; None where the clients are our own."""
    rate_factor: float = 1.0
    """Factor of the server's step: what the delay and the noise of a beat ask for."""
    privacy: Privacy | None = None
    """What every round is charged for (`federation.privacy`); the noise itself is a hook's."""
    server_seed: int | None = None
    """Who joins, and noise, are drawn from it in the place of `seed`, which clients know; None:
    from `seed`."""

    @property
    def own_seed(self) -> int:
        """What the server's own draws come from."""
        return self.seed if self.server_seed is None else self.server_seed


@dataclass(frozen=True, slots=True, eq=False)
class ServerState:
    """What one round hands to the next; all that a resumed run needs of the algorithm."""

    round_index: int
    """The next round."""
    adapter: Mapping[str, Array]
    optimizer: OptimizerState
    plan: Plan
    memory: Memory = field(default_factory=dict)
    """What the aggregation keeps."""
    watch: Watch = field(default_factory=Watch)
    """What the checks of the rounds so far left."""
    step_factor: float = 1.0
    """Factor of the server's step; below 1 once the run has stepped back."""
    underway: tuple[Underway, ...] = ()
    """What was begun and has not ended; empty between rounds that wait for all."""
    in_vain: Mapping[int, int] = field(default_factory=dict)
    """Beats, but the first of each task, for which a client seemed to be busy with what came to
    nothing, since its last update that arrived; by client."""
    spent: Floats = field(default_factory=nothing_spent)
    """Privacy that each client has spent so far, as `estimation.privacy_loss.round_loss`; a run
    that steps back keeps it."""


def run_round(
    engine: Engine, federation: Federation, state: ServerState
) -> tuple[RoundRecord, ServerState]:
    r"""Run one round (method of arXiv 2505.23555).

    Each client joins with probability q_n; who joins trains H local steps on its sketch; the
    server moves along what the aggregation makes of the updates, for our method the unbiased sum
    :math:`\sum_n a_n (I_n / q_n) \Delta_n`. A client that answers an invitation with probability
    p_n only counts a_n / (q_n p_n). An empty round is recorded, costs its overhead, and leaves the
    adapter as it is. With `Federation.checks` an update that fails them is recorded as a refusal
    and not used, and a client refused too often is not asked again: what is fitted from then on is
    the loss of the others, whose data weights are scaled to sum to 1. Where an update or what the
    server makes of it is not finite, the record says so (`RoundRecord.diverged`), and adapter,
    optimiser and memory stay.

    Args:
        engine: where the clients are.
        federation: what stays the same.
        state: what the last round left.

    Returns:
        The round's record (not yet evaluated) and the state for the next round.

    Raises:
        RunError: every client is excluded.
    """
    plan, index = state.plan, state.round_index
    joined = sample_participants(plan, index, federation.own_seed)
    aggregation = federation.aggregation
    start = aggregation.start(state.adapter, index, federation.seed)
    excluded = excluded_clients(federation, state)
    tasks = [
        ClientTask(int(n), index, start, int(plan.sketch_rank[n]), federation.seed)
        for n in joined.client
        if int(n) not in excluded
    ]
    outcome = engine.run_round(index, tasks)
    answered = {u.client for u in outcome.updates} | {client for client, _ in outcome.unreadable}
    inverse = dict(zip(joined.client.tolist(), joined.inverse_probability, strict=True))
    possible = possible_weights(federation, state)

    def weight(update: ClientUpdate, share: float) -> float:
        n = update.client
        return share * float(inverse[n]) / float(federation.availability[n])

    record, after = settle(
        federation, state, tasks, start, outcome, weight,
        clock_seconds=engine.now(),
        missing=tuple(t.client for t in tasks if t.client not in answered),
        largest_weight=float(possible.max()),
    )  # fmt: skip
    if federation.privacy is None:
        return record, after
    spent = charged(state.spent, plan, possible, federation.privacy)
    told = told_of(spent, possible, federation.privacy)
    return replace(record, privacy=told), replace(after, spent=spent)


def possible_weights(federation: Federation, state: ServerState) -> Floats:
    """Return a_n / (q_n p_n) of every client, whether it joins or not, shape (N,).

    a_n is its share of the data, or of the plan's `aggregation_weight`, of those who are not
    excluded; 0 for those who are.
    """
    share = _whole_shares(federation, state).copy()
    share[sorted(excluded_clients(federation, state))] = 0.0
    asked = state.plan.participation_probability() * federation.availability
    return np.asarray(share / share.sum() / asked)


def excluded_clients(federation: Federation, state: ServerState) -> frozenset[int]:
    """Return the clients that are not asked any more.

    Raises:
        RunError: that is everyone.
    """
    if federation.checks is None:
        return frozenset()
    excluded, count = state.watch.excluded(federation.checks), len(state.plan)
    if len(excluded) == count:
        raise RunError(
            f"round {state.round_index + 1}: all {count} clients are excluded, so nobody is left "
            "to train; the record says what was refused. If they are honest, raise [checks] "
            "norm_factor or strikes in a new run"
        )
    return excluded


def settle(
    federation: Federation,
    state: ServerState,
    asked: Sequence[ClientTask],
    start: Adapter,
    outcome: RoundOutcome,
    weight: Callable[[ClientUpdate, float], float],
    *,
    clock_seconds: float,
    missing: tuple[int, ...],
    underway: Sequence[Underway] | None = None,
    largest_weight: float = math.nan,
) -> tuple[RoundRecord, ServerState]:
    """Check what came back, aggregate it, and move the server.

    Args:
        federation: what stays the same.
        state: what the last round left.
        asked: what the clients of `outcome` were asked for; the adapters in it are not read.
        start: what the clients of this round started from.
        outcome: what came back.
        weight: an update and a_n, its client's share of the data (or of the plan's
            `aggregation_weight`) of those who are not excluded -> its weight, whose mean in a
            round is a_n.
        clock_seconds: when the round ended.
        missing: who was asked and did not answer.
        underway: what has not ended; None of a round that waits for all.
        largest_weight: that any client could have had in this round.

    Returns:
        The round's record (not yet evaluated) and the state for the next round.
    """
    index, aggregation, count = state.round_index, federation.aggregation, len(state.plan)
    checks, watch = federation.checks, state.watch
    excluded = excluded_clients(federation, state)
    whole = _whole_shares(federation, state)
    remaining = 1.0 - float(whole[sorted(excluded)].sum())
    updates, deliveries = outcome.updates, outcome.deliveries
    refusals, new = tuple(outcome.unreadable), tuple[int, ...]()
    if checks is not None:
        verdict = check_updates(
            checks,
            watch,
            [replace(task, adapter=start) for task in asked],
            updates,
            federation.layout.only(aggregation.trained),
            aggregation.sketch,
            outcome.unreadable,
            clients=count,
        )
        refusals, watch, new = verdict.refusals, verdict.watch, verdict.excluded
        updates = [updates[i] for i in verdict.accepted]
        deliveries = [deliveries[i] for i in verdict.accepted]

    share = [float(whole[u.client]) / remaining for u in updates]
    weights = [weight(u, a) for u, a in zip(updates, share, strict=True)]
    diverged = fault_of_updates(updates)
    moved = _Moved(_unknown(weights), state.adapter, state.optimizer, state.memory)
    if diverged is None:
        needed = frozenset(u.started_round for u in underway or ())
        returned = Returned(
            updates, start, share, weights, index, needed, largest_weight, federation.own_seed
        )
        then, diverged = _move(federation, state, returned)
        moved = then if diverged is None else moved
    result = moved.result

    people = tuple(
        ParticipantRecord(
            client=u.client, sketch_rank=len(u.components), weight=w,
            download_bytes=d.download_bytes, upload_bytes=d.upload_bytes,
            start_seconds=d.start_seconds, upload_seconds=d.upload_seconds,
            bandwidth_hz=d.bandwidth_hz, train_loss=u.train_loss,
            lora_squared_norm=norms[0], head_squared_norm=norms[1], started_round=u.round_index,
        )
        for u, w, d, norms in zip(
            updates, result.weights, deliveries, result.client_squared_norms, strict=True
        )
    )  # fmt: skip
    record = RoundRecord(
        method=federation.method,
        round=index,
        clock_seconds=clock_seconds,
        round_seconds=outcome.round_seconds,
        participants=people,
        # What was refused was sent all the same.
        upload_bits=8 * (sum(d.upload_bytes for d in outcome.deliveries)
                         + outcome.other_upload_bytes),
        download_bits=8 * (sum(d.download_bytes for d in outcome.deliveries)
                           + outcome.other_download_bytes),
        train_loss=float(np.mean([p.train_loss for p in people])) if people else None,
        lora_squared_norm=result.squared_norms[0],
        head_squared_norm=result.squared_norms[1],
        refusals=refusals,
        excluded=new,
        missing=missing,
        failed=tuple(outcome.failed),
        late=tuple(outcome.late),
        overhead_seconds=outcome.overhead_seconds,
        diverged=diverged,
        server_rate_factor=state.step_factor * federation.rate_factor,
        underway=None if underway is None else len(underway),
    )  # fmt: skip
    return record, replace(
        state, round_index=index + 1, adapter=moved.adapter, optimizer=moved.optimizer,
        memory=moved.memory, watch=watch, underway=tuple(underway or ()),
    )  # fmt: skip


def _whole_shares(federation: Federation, state: ServerState) -> Floats:
    """Return each client's share of the mean where nobody is excluded, shape (N,)."""
    given = state.plan.aggregation_weight
    return federation.data_weight if given is None else given


@dataclass(frozen=True, slots=True, eq=False)
class _Moved:
    """What the server makes of a round's updates."""

    result: Aggregate
    adapter: Mapping[str, Array]
    optimizer: OptimizerState
    memory: Memory


def _move(
    federation: Federation, state: ServerState, returned: Returned
) -> tuple[_Moved, str | None]:
    """Aggregate and step; return what is not finite, too, or None."""
    aggregation, adapter, optimizer = federation.aggregation, state.adapter, state.optimizer
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        try:
            result, memory = aggregation.aggregate(adapter, state.memory, returned)
        except np.linalg.LinAlgError as error:
            unknown = _unknown(returned.unbiased_weight)
            return _Moved(unknown, adapter, optimizer, state.memory), f"aggregation: {error}"
        # Nobody came: nothing to go by, unless the aggregation remembers.
        if returned.updates or any(result.squared_norms):
            step = federation.server_optimizer.step
            adapter, optimizer = step(adapter, result.update, optimizer)
            if (whole := state.step_factor * federation.rate_factor) != 1.0:
                factor = np.float32(whole)
                old = state.adapter
                adapter = {n: old[n] + factor * (new - old[n]) for n, new in adapter.items()}
    people = (update.client for update in returned.updates)
    norms = dict(zip(people, result.client_squared_norms, strict=True))
    fault = fault_of_step(norms, result.squared_norms, adapter, optimizer, memory)
    return _Moved(result, adapter, optimizer, memory), fault


def _unknown(weights: Sequence[float]) -> Aggregate:
    """Return the aggregate of updates that cannot be aggregated."""
    nothing = (math.nan, math.nan)
    return Aggregate({}, weights, [nothing] * len(weights), nothing)
