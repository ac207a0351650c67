"""Predicted and measured times of a round on a real network, of each of its clients too."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ClientTimes:
    """One client in one round; s from the start of the round, by the machine's clock."""

    client: int
    rate_bps: float
    predicted_start: float
    predicted_finish: float
    fetched: float | None
    """The task is with the client."""
    start: float | None
    """It begins to send."""
    sent: float | None
    """The last of its answer passed the access point."""
    finish: float | None
    """The server has its answer."""
    upload_bytes: int
    wire_bytes: int
    overrun_seconds: float


@dataclass(frozen=True, slots=True)
class RoundTimes:
    """One round."""

    method: str
    round: int
    predicted_seconds: float
    """What the virtual clock says, with these participants: T and [network] overhead_seconds."""
    transfer_seconds: float
    """T alone."""
    measured_seconds: float
    clients: tuple[ClientTimes, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "RoundTimes":
        """Rebuild it from what `to_json` returned."""
        clients = tuple(ClientTimes(**row) for row in table["clients"])
        return cls(**{**table, "clients": clients})

    @property
    def finish_spread(self) -> float | None:
        """Latest less earliest end of an upload over the round's seconds; None for one client."""
        sent = [c.sent for c in self.clients if c.sent is not None]
        return (max(sent) - min(sent)) / self.measured_seconds if len(sent) > 1 else None
