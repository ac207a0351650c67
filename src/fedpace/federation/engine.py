"""The seam between the algorithm and wherever its clients are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.record import LateRecord

Train = Callable[[Sequence[ClientTask]], Sequence[ClientUpdate]]
"""A trainer: the participants of a round, trained together; updates in the order of the tasks."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one client's round went on the wire; times count from the start of the round."""

    download_bytes: int
    upload_bytes: int
    start_seconds: float
    """When it started to send: download and local steps done, s."""
    upload_seconds: float
    bandwidth_hz: float


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """What came back of one round, in the order of the tasks."""

    updates: Sequence[ClientUpdate]
    deliveries: Sequence[Delivery]
    """One for each update."""
    round_seconds: float
    unreadable: Sequence[tuple[int, str]] = ()
    """(client, reason) of answers that could not be made an update."""
    failed: Sequence[tuple[int, str]] = ()
    """(client, reason) of those that answered with an error; they count as not having answered."""
    late: Sequence[LateRecord] = ()
    """Answers to earlier rounds that came in this one."""
    other_upload_bytes: int = 0
    """What clients sent beside `deliveries`: unreadable answers, questions whether there is work,
    empty messages."""
    other_download_bytes: int = 0
    """What they were sent beside `deliveries`."""
    overhead_seconds: float | None = None
    """What of the round, and of the time since the one before, was neither training nor transfer,
    s; None where the engine does not observe it."""


class Engine(Protocol):
    """Where rounds happen: in this process on a virtual clock, or over a network."""

    def now(self) -> float:
        """Seconds since the run began, on this engine's own clock."""

    def run_round(self, round_index: int, tasks: Sequence[ClientTask]) -> RoundOutcome:
        """Have every client do its task; no task at all is an empty round and costs overhead."""
