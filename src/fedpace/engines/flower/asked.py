"""What clients were asked for, and what came of it; a fleet's engines share what is pending."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.federation.engine import Delivery


@dataclass(frozen=True, slots=True)
class Sent:
    """One task on its way."""

    task: ClientTask
    node: int
    download_bytes: int
    bandwidth_hz: float
    at: float
    """When it was sent, on the engine's clock, s."""
    began: float
    """When its round did; where rounds overlap, when it was sent."""
    due: float
    """When its answer counts no more."""
    until: float
    """When the answer is not waited for any more, late as it is."""

    @property
    def key(self) -> tuple[int, int]:
        """Client and round: it is asked once in a round."""
        return self.task.client, self.task.round_index


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a task; where nothing is stated, it was not answered in time."""

    sent: Sent
    at: float
    """When, on the engine's clock, s."""
    update: ClientUpdate | None = None
    delivery: Delivery | None = None
    unreadable: str | None = None
    """Why it could not be made an update."""
    failed: str | None = None
    """The error that its client answered with."""

    @property
    def arrived(self) -> bool:
        """Whether its client did what it was asked, well or badly."""
        return self.update is not None or self.unreadable is not None


@dataclass(slots=True)
class Asked:
    """By the names of Flower's messages."""

    pending: dict[str, Sent] = field(default_factory=dict)
    """What counts when it comes."""
    late: dict[str, Sent] = field(default_factory=dict)
    """What counts no more, but tells how fast its client is, which is asked nothing else until
    then."""

    def busy(self, client: int) -> bool:
        """Say whether a client was asked for something that it has not answered."""
        waiting = (*self.pending.values(), *self.late.values())
        return any(sent.task.client == client for sent in waiting)

    def give_up(self, but: Collection[tuple[int, int]] = ()) -> None:
        """Let what is pending, but these, count no more."""
        for name, sent in list(self.pending.items()):
            if sent.key not in but:
                self.late[name] = self.pending.pop(name)

    def overdue(self, now: float) -> list[Sent]:
        """Let what is due by now count no more, and return it."""
        found = [name for name, sent in self.pending.items() if now >= sent.due]
        for name in found:
            self.late[name] = self.pending.pop(name)
        return [self.late[name] for name in found]

    def forget(self, now: float, node_of: Callable[[int], int | None]) -> None:
        """Wait no more for whoever went, or came again on another node, or takes too long."""
        for name, sent in list(self.late.items()):
            if now >= sent.until or sent.node != node_of(sent.task.client):
                del self.late[name]
