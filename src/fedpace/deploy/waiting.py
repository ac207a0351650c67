"""For whom a run over the network waits, and how long."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """When a run begins, and how long its rounds wait."""

    clients: int | None
    """It begins when so many have come; None: as many as [data] clients."""
    seconds: float
    """Or, after so many seconds, with those that have, at least one."""
    patience_seconds: float
    """What a round waits at most before the fleet's speed is known."""
    closed: bool = False
    """Whether the run keeps to those with whom it began."""
