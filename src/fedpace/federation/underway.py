"""Work that is underway between two server steps: part of the server's state and checkpoint."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedpace.core.messages import ClientTask
from fedpace.federation.engine import RoundOutcome
from fedpace.wireless.service import Sending

__all__ = ["OverlappingEngine", "Underway", "from_arrays", "to_arrays", "to_json"]


@dataclass(frozen=True, slots=True, eq=False)
class Underway:
    """What one client was asked for, and how far it is."""

    client: int
    started_round: int
    """Round of the adapter that it trains on."""
    sketch_rank: int
    inverse_probability: float
    """1 / q_n, with the chance by which it was started."""
    started_seconds: float
    """When it was asked, on the clock, s."""
    download_bytes: int
    upload_bytes: int
    sending: Sending
    train_loss: float = np.nan
    message: bytes = b""
    """The encoded update; empty until it was trained, or where the engine has it elsewhere."""

    @property
    def arrived(self) -> bool:
        """Whether its update is there; of one that has ended without, none will come."""
        return self.sending.arrived_seconds is not None

    def task(self, seed: int) -> ClientTask:
        """Return what it was asked for, without the adapter."""
        return ClientTask(self.client, self.started_round, {}, self.sketch_rank, seed)


@runtime_checkable
class OverlappingEngine(Protocol):
    """Where clients are that nobody waits for. What is underway is the caller's to keep."""

    def now(self) -> float:
        """Seconds since the run began, on this engine's own clock."""

    def stepped(self) -> float:
        """When the server stepped last; what it has done since is part of the beat.

        Later than that by what it waited until somebody was there.
        """

    def start(self, tasks: Sequence[ClientTask]) -> list[Underway]:
        """Ask clients for their tasks, now, and return those who took them."""

    def train(self, tasks: Sequence[ClientTask], underway: Sequence[Underway]) -> list[Underway]:
        """Return everything underway, with the messages of those that `tasks` began."""

    def advance(
        self,
        round_index: int,
        underway: Sequence[Underway],
        *,
        until: float = math.inf,
        arrivals: int | None = None,
    ) -> tuple[list[Underway], list[Underway]]:
        """Wait until then, or for so many arrivals, and return who has ended and who has not.

        Whoever has ended has arrived, or failed.
        """

    def read(self, ended: Sequence[Underway]) -> RoundOutcome:
        """Decode what has arrived; times count from the start of each client."""


def to_json(underway: Sequence[Underway]) -> list[dict[str, Any]]:
    """Return all but the messages as JSON types."""
    rows = []
    for each in underway:
        row = asdict(each)
        del row["message"]
        if not np.isfinite(each.train_loss):
            row["train_loss"] = None  # JSON has no NaN
        rows.append(row)
    return rows


def to_arrays(underway: Sequence[Underway]) -> dict[str, NDArray[np.uint8]]:
    """Return the messages as arrays of bytes, by client."""
    return {str(u.client): np.frombuffer(u.message, dtype=np.uint8) for u in underway}


def from_arrays(
    rows: Sequence[Mapping[str, Any]], arrays: Mapping[str, NDArray[np.uint8]]
) -> tuple[Underway, ...]:
    """Rebuild what `to_json` and `to_arrays` returned."""
    return tuple(
        Underway(
            **{
                **row,
                "sending": Sending(**row["sending"]),
                "train_loss": np.nan if row["train_loss"] is None else row["train_loss"],
            },
            message=arrays[str(row["client"])].tobytes(),
        )
        for row in rows
    )
