"""What happened: a record per round, the same for every engine, as JSON lines."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ParticipantRecord:
    """One participant of one round."""

    client: int
    sketch_rank: int
    weight: float
    """Its aggregation weight: a_n / q_n, or as a published method has it."""
    download_bytes: int
    upload_bytes: int
    start_seconds: float
    """tau_n: from the start of the round until it starts to send, s."""
    upload_seconds: float
    bandwidth_hz: float
    train_loss: float
    lora_squared_norm: float
    """||Delta_n||^2 of the A and B part, as aggregated (times r/k for the residual sketch)."""
    head_squared_norm: float
    """||Delta_n||^2 of the task head."""
    started_round: int = -1
    """The round whose adapter it trained on, an earlier one where rounds overlap; -1 where a record
    of an earlier version does not say."""


@dataclass(frozen=True, slots=True)
class LateRecord:
    """An answer that came after its round: not used, but it tells how fast its client is."""

    client: int
    round: int
    """For which it was meant."""
    sketch_rank: int
    upload_bytes: int
    start_seconds: float
    """As a participant's, from the start of its own round, s."""
    upload_seconds: float
    bandwidth_hz: float


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round."""

    method: str
    round: int
    """0, 1, 2, ..."""
    clock_seconds: float
    """When the round ended, from the start of the run, s."""
    round_seconds: float
    participants: tuple[ParticipantRecord, ...]
    upload_bits: int
    """Bits of all participants together, refused answers included; over a network also of the
    others' questions whether there is work."""
    download_bits: int
    """Likewise."""
    train_loss: float | None
    """Mean over the participants; None in an empty round."""
    lora_squared_norm: float
    """||sum_n a_n/q_n Delta_n||^2 of the A and B part."""
    head_squared_norm: float
    evaluation: Mapping[str, float] | None = None
    """"loss" and, for classification, "accuracy" on held-out data after the round."""
    noise_scale: Mapping[str, float] | None = None
    """Estimates so far of V, ||u||^2 and their ratio; see planning.constants."""
    refusals: tuple[tuple[int, str], ...] = ()
    """(client, reason) of what was sent and not used; see federation.checks."""
    excluded: tuple[int, ...] = ()
    """Clients that were refused too often with this round, and are not asked again."""
    missing: tuple[int, ...] = ()
    """Clients that were asked and did not answer in time."""
    failed: tuple[tuple[int, str], ...] = ()
    """(client, reason) of those among `missing` that answered with an error."""
    late: tuple[LateRecord, ...] = ()
    """Answers to earlier rounds that came in this one."""
    overhead_seconds: float | None = None
    """Neither training nor transfer, since the round before, s; None on the virtual clock."""
    underway: int | None = None
    """How many clients were still at work on what they were asked when it ended; None of a round
    that waits for all."""
    entered: tuple[int, ...] = ()
    """Clients that take part in the run from this round on."""
    diverged: str | None = None
    """What was not finite, of the updates, the adapter or the evaluation; None where all was."""
    server_rate_factor: float | None = None
    """What the server's learning rate was multiplied by: for the schedule, for the noise, and
    halved where the run stepped back; None in records of earlier versions."""
    stepped_back_to: int | None = None
    """The run goes on with the adapter that it had after so many rounds, and half the server step;
    None where it did not diverge, or ended here."""
    privacy: Mapping[str, float] | None = None
    """What the rounds so far have cost the clients ("epsilon_max", of "epsilon_client",
    "epsilon_median"; null without noise), at which "delta", and of this round the "noise_deviation"
    of every entry; "ended" is 1 where one more round would pass max_epsilon. None where nothing is
    kept private."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        table: dict[str, Any] = _plain(asdict(self))
        return table

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "RoundRecord":
        """Rebuild a record from what `to_json` returned."""
        numbers = ("lora_squared_norm", "head_squared_norm")
        restored = {name: _nan_for_null(table[name]) for name in numbers}
        for name in ("evaluation", "noise_scale", "privacy"):
            if (values := table.get(name)) is not None:
                restored[name] = {key: _nan_for_null(value) for key, value in values.items()}
        restored["participants"] = tuple(
            ParticipantRecord(**{key: _nan_for_null(value) for key, value in row.items()})
            for row in table["participants"]
        )
        for name in ("refusals", "failed"):
            restored[name] = tuple((c, reason) for c, reason in table.get(name, ()))
        restored["late"] = tuple(LateRecord(**row) for row in table.get("late", ()))
        for name in ("missing", "entered", "excluded"):
            restored[name] = tuple(table.get(name, ()))
        return cls(**{**table, **restored})


def records_of(records: Sequence[RoundRecord], method: str) -> list[RoundRecord]:
    """Return the records of one method, in order."""
    return [record for record in records if record.method == method]


def _nan_for_null(value: Any) -> Any:
    return math.nan if value is None else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(value: Any) -> Any:
    """JSON has no NaN: a number that is none is written as null."""
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
