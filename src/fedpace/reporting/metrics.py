"""Numbers of a run, computed from its round records: time to target, traffic, who took part.

Every function takes the records of one method, in order (`fedpace.core.record.records_of`), and
where a plan is needed the plans in force: `(first round, plan)`, the first from round 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpace.core.errors import InputError
from fedpace.core.plan import Plans
from fedpace.core.profile import Floats
from fedpace.core.record import RoundRecord, records_of
from fedpace.core.target import Target

_LARGEST_LOSS = math.log(1e300)
"""Above it a perplexity is no number that a file can hold."""


def first_reaching(records: Sequence[RoundRecord], target: Target) -> RoundRecord | None:
    """Return the first round whose evaluation reaches the target, or None.

    Nothing is interpolated: between two evaluations the target counts as not reached.
    """
    for record in records:
        if record.evaluation is not None and target.reached(record.evaluation):
            return record
    return None


def time_to_target(records: Sequence[RoundRecord], target: Target) -> float | None:
    """Seconds from the start of the run to the end of the first round that reaches the target.

    Args:
        records: of one method.
        target: on the evaluations.

    Returns:
        Seconds, or None if no evaluation reaches it.
    """
    record = first_reaching(records, target)
    return None if record is None else record.clock_seconds


def curve(
    records: Sequence[RoundRecord], metric: str, initial: Mapping[str, float] | None = None
) -> tuple[Floats, Floats]:
    """Return a held-out metric against the clock.

    Args:
        records: of one method; rounds without this metric are passed over.
        metric: "loss" or "accuracy".
        initial: the evaluation before the first round, at 0 s.

    Returns:
        Clock, s, and the metric, both of shape (number of evaluations,).
    """
    points = [(0.0, float(initial[metric]))] if initial and metric in initial else []
    points += [
        (record.clock_seconds, float(record.evaluation[metric]))
        for record in records
        if record.evaluation is not None and metric in record.evaluation
    ]
    table = np.array(points, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def diverged_round(records: Sequence[RoundRecord]) -> int | None:
    """Return the round, counted from 1, in which a method ended as it had diverged, or None."""
    ended = bool(records) and records[-1].diverged is not None
    return records[-1].round + 1 if ended and records[-1].stepped_back_to is None else None


def traffic_bits(records: Sequence[RoundRecord]) -> tuple[int, int]:
    """Return the bits that all participants sent and received, (upload, download)."""
    return sum(r.upload_bits for r in records), sum(r.download_bits for r in records)


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Where the clock's seconds went; the four parts sum to the clock."""

    compute_seconds: float
    """Download and local steps: until the participant starts to send."""
    upload_seconds: float
    waiting_seconds: float
    """For the last participant of the round to finish."""
    overhead_seconds: float
    """The rest: fixed overhead, empty rounds, whatever passes between rounds."""


def time_split(records: Sequence[RoundRecord]) -> TimeSplit:
    """Split the clock into compute, upload, waiting and overhead, as the mean participant sees it.

    A round in which participant i starts to send after c_i and sends for u_i seconds splits into
    mean c_i, mean u_i, and max(c_i + u_i) - mean(c_i + u_i), which is 0 where all finish together;
    what the clock shows beyond that is overhead. Computing and sending of different clients
    overlap, so this says where a participant's time goes, not what the channel was doing.

    Args:
        records: of one method, from its first round on.

    Returns:
        The parts, s; their sum is the clock of the last record.
    """
    compute = upload = waiting = 0.0
    for record in records:
        if not record.participants:
            continue
        start = np.array([p.start_seconds for p in record.participants])
        send = np.array([p.upload_seconds for p in record.participants])
        compute += float(start.mean())
        upload += float(send.mean())
        waiting += float((start + send).max() - (start + send).mean())
    clock = records[-1].clock_seconds if records else 0.0
    return TimeSplit(compute, upload, waiting, clock - compute - upload - waiting)


def staleness(records: Sequence[RoundRecord]) -> NDArray[np.int64]:
    """Return how many steps the server made since the adapter of each update, shape (updates,)."""
    late = [
        record.round - p.started_round
        for record in records
        for p in record.participants
        if p.started_round >= 0  # records of earlier versions do not say
    ]
    return np.array(late, dtype=np.int64)


def age_seconds(records: Sequence[RoundRecord]) -> Floats:
    """Return how long each update took where rounds overlap, shape (updates,), s.

    From the beat at which its client began to the end of the beat in which it counts.
    """
    ends = {record.round: record.clock_seconds for record in records}
    first = records[0].clock_seconds - records[0].round_seconds if records else 0.0
    return np.array([
        record.clock_seconds - ends.get(p.started_round - 1, first)
        for record in records
        for p in record.participants
        if p.started_round >= 0
    ])  # fmt: skip


def overlapped(records: Sequence[RoundRecord]) -> bool:
    """Say whether the server stepped without waiting for all."""
    return any(record.underway is not None for record in records)


def participation_counts(records: Sequence[RoundRecord], clients: int) -> NDArray[np.int64]:
    """Return in how many rounds each client took part, shape (clients,)."""
    counts = np.zeros(clients, dtype=np.int64)
    for record in records:
        counts[np.unique([p.client for p in record.participants]).astype(np.int64)] += 1
    return counts


def expected_participation(plans: Plans, rounds: int, availability: Floats) -> Floats:
    """Return the rounds each client was to take part in: q_n times its availability, summed.

    Where rounds overlap, the beats in which an update of it was to count.

    Args:
        plans: in force.
        rounds: how many rounds were run.
        availability: probability that an invited client answers, shape (N,).

    Returns:
        Shape (N,), rounds.
    """
    chance = np.zeros(len(availability))
    for (_, plan), length in zip(plans, rounds_in_force(plans, rounds), strict=True):
        asked = plan.updates_per_beat()
        if asked is None:
            asked = plan.participation_probability() * availability[: len(plan)]
        chance[: len(plan)] += length * asked  # newcomers: from later on
    return chance


def predicted_seconds(plans: Plans, rounds: int) -> float | None:
    """Return the predicted duration of the rounds, s: the mean round of each plan in force.

    None if a plan predicts no round time.
    """
    total = 0.0
    for (_, plan), length in zip(plans, rounds_in_force(plans, rounds), strict=True):
        if length and plan.round_seconds is None:
            return None
        total += length * plan.round_seconds.mean if plan.round_seconds is not None else 0.0
    return total


def rounds_in_force(plans: Plans, rounds: int) -> list[int]:
    """Return how many of the first `rounds` rounds each plan was in force."""
    begin = [min(first, rounds) for first, _ in plans]
    return [after - at for at, after in zip(begin, [*begin[1:], rounds], strict=True)]


def followed(plans: Plans, rounds: int) -> Plans:
    """Return the plans that were in force for at least one of the first `rounds` rounds.

    A renewal is made after the last round, too: what it plans nobody has followed.
    """
    lengths = rounds_in_force(plans, rounds)
    return [each for each, length in zip(plans, lengths, strict=True) if length]


def summarise(
    records: Sequence[RoundRecord],
    plans: Plans,
    target: Target | None,
    initial: Mapping[str, float] | None = None,
) -> dict[str, float | str | None]:
    """Make a method's entry of summary.json.

    Args:
        records: of one method, at least one.
        plans: in force.
        target: when the clock is read; None if the run had none.
        initial: the evaluation before the first round.

    Returns:
        JSON types; null where a number is not known, and all that is known of a model that
        diverged is when and how. `predicted_seconds` is the predicted duration
        of the rounds that were run, to be held against `clock_seconds`.

    Raises:
        InputError: no record.
    """
    if not records:
        raise InputError("the method has no rounds to summarise; run at least one")
    last, rounds = records[-1], len(records)
    diverged = diverged_round(records)
    # A run of before such targets were refused goes on; the time to its target is not stated.
    held = target is not None and bool(initial) and target.reached(initial or {})
    reached = None if target is None or diverged or held else first_reaching(records, target)
    upload, download = traffic_bits(records)
    evaluations = [r.evaluation for r in records if r.evaluation is not None]
    final = evaluations[-1] if evaluations and not diverged else {}
    predicted = predicted_seconds(plans, rounds)
    entry: dict[str, float | str | None] = {
        "planner": plans[0][1].planner,
        "schedule": _schedule(records, plans),
        "verdict": plans[0][1].verdict,
        "time_to_target_seconds": None if reached is None else reached.clock_seconds,
        "rounds_to_target": None if reached is None else reached.round + 1,
        "diverged": diverged,
        "diverged_because": last.diverged if diverged else None,
        "steps_back": sum(record.stepped_back_to is not None for record in records),
        "rounds": rounds,
        "clock_seconds": last.clock_seconds,
        "final_loss": _known(final.get("loss")),
        "initial_loss": _known((initial or {}).get("loss")),
        "upload_bits": upload,
        "download_bits": download,
        "mean_participants": float(np.mean([len(r.participants) for r in records])),
        "mean_round_seconds": float(np.mean([r.round_seconds for r in records])),
        "predicted_round_seconds": None if predicted is None else predicted / rounds,
        "predicted_seconds": predicted,
    }
    if entry["schedule"] != "synchronous":
        late = staleness(records)
        entry["mean_staleness"] = float(late.mean()) if len(late) else None
        entry["p95_staleness"] = float(np.quantile(late, 0.95)) if len(late) else None
        entry["mean_underway"] = float(np.mean([r.underway or 0 for r in records]))
    if entry["schedule"] == "overlapping":
        ages = age_seconds(records)
        entry["counted_updates"] = sum(len(r.participants) for r in records)
        entry["mean_age_seconds"] = float(ages.mean()) if len(ages) else None
        entry |= _predicted_updates(plans, rounds)
    if (spent := last.privacy) is not None:
        told = ("epsilon_max", "epsilon_client", "epsilon_median", "delta")
        entry |= {name: _known(spent[name]) for name in told}
        entry["ended_for_privacy"] = rounds if spent["ended"] else None
    if "accuracy" not in final and "loss" in final:  # a language model
        entry["final_perplexity"] = _perplexity(final.get("loss"))
        entry["initial_perplexity"] = _perplexity((initial or {}).get("loss"))
    if "accuracy" in final or (target is not None and target.metric == "accuracy"):
        entry["final_accuracy"] = _known(final.get("accuracy"))
        entry["initial_accuracy"] = _known((initial or {}).get("accuracy"))
    return entry


def _predicted_updates(plans: Plans, rounds: int) -> dict[str, float | None]:
    """How many updates are counted in so many beats, and their mean age, s, as planned."""
    count = weighted = 0.0
    for (_, plan), length in zip(plans, rounds_in_force(plans, rounds), strict=True):
        if (counted := plan.updates_per_beat()) is None:
            continue
        updates = length * float(counted.sum())
        count += updates
        weighted += updates * (np.nan if (age := plan.staleness_seconds) is None else age.mean)
    return {
        "predicted_updates": count,
        "predicted_age_seconds": _known(weighted / count) if count else None,
    }


def _schedule(records: Sequence[RoundRecord], plans: Plans) -> str:
    if any(plan.schedule == "overlapping" for _, plan in plans):
        return "overlapping"
    return "asynchronous" if overlapped(records) else "synchronous"


def _perplexity(loss: float | None) -> float | None:
    """Return the exponential of the mean loss of a token; None where it is no number."""
    known = _known(loss)
    return None if known is None or known > _LARGEST_LOSS else math.exp(known)


def summarise_run(
    records: Sequence[RoundRecord],
    plans: Mapping[str, Plans],
    initial: Mapping[str, Mapping[str, float]],
    target: Target | None,
) -> dict[str, Any]:
    """Make summary.json, but for where and with what the run was made.

    Args:
        records: of all methods.
        plans: by method; the first is the reference of the speed-ups.
        initial: by method, the evaluation before its first round.
        target: when the clock is read; None if the run had none.
    """
    methods = {
        method: summarise(records_of(records, method), made, target, initial[method])
        for method, made in plans.items()
    }
    seconds = {name: entry["time_to_target_seconds"] for name, entry in methods.items()}
    return {
        "methods": methods,
        "speedup": speedups(seconds),  # type: ignore[arg-type]
        "target": None if target is None else str(target),
    }


def speedups(seconds: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return each method's time over the first method's: above 1, the first one is faster.

    Args:
        seconds: time to target by method, None if not reached; the first is the reference.

    Example:
        >>> speedups({"adaptive": 100.0, "uniform": 190.0, "full": None})
        {'adaptive': 1.0, 'uniform': 1.9, 'full': None}
    """
    reference = next(iter(seconds.values()), None)
    return {
        name: value / reference if value is not None and reference else None
        for name, value in seconds.items()
    }


def _known(value: float | None) -> float | None:
    """JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else float(value)
