"""How long a message takes that carries nothing: Flower's pauses and requests, and both ends' work.

Flower shows a server the end of a client's round alone. What of it was neither training nor
transfer is learned from empty messages: every client answers a few before its first round, and in
each later round one that does not take part answers one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from fedpace.core.profile import Floats
from fedpace.engines.flower.arrivals import Upload
from fedpace.engines.flower.messages import empty_message
from fedpace.estimation.client_means import (
    ClientMeans,
    fold,
    no_observations,
    shrunk,
    with_unseen,
)

FORGET = 0.95
"""Factor by which a client's older echo counts less."""
ECHO_SECONDS = 30.0
"""An empty message that was not answered by then never is."""


@dataclass(slots=True)
class Echoes:
    """Sends empty messages and remembers how long each client took to answer."""

    seen: ClientMeans = field(default_factory=lambda: no_observations(0))
    """Seconds, by client."""
    seen_upload: ClientMeans = field(default_factory=lambda: no_observations(0))
    """Seconds of these, from the answer's announcement until it had come."""
    pending: dict[str, tuple[int, float]] = field(default_factory=dict)
    """What is on its way, by message: client, and when it was sent, s."""
    asked: set[int] = field(default_factory=set)
    """Clients that were sent one at any time."""
    sent: int = 0
    """How many so far."""

    def send(self, grid: Grid, to: Sequence[tuple[int, int]], now: float) -> None:
        """Send an empty message to each (client, node)."""
        if not to:
            return
        asked = grid.push_messages(
            [
                Message(
                    empty_message(), dst_node_id=node, message_type=MessageType.QUERY,
                    ttl=ECHO_SECONDS,
                )
                for _, node in to
            ]
        )  # fmt: skip
        self.sent += len(to)
        self.asked.update(client for client, _ in to)
        self.pending |= {m: (c, now) for m, (c, _) in zip(asked, to, strict=True) if m}

    def heard(self, reply: Message, now: float, came: Upload | None = None) -> bool:
        """Take a reply into account; False where it is none to an empty message.

        Args:
            reply: of anyone, to anything.
            now: when it was complete, s.
            came: how; None where nobody saw.
        """
        found = self.pending.pop(reply.metadata.reply_to_message_id, None)
        if found is None:
            return False
        client, at = found
        if not reply.has_error():
            self.seen = _folded(self.seen, client, now - at)
            if came is not None:
                self.seen_upload = _folded(self.seen_upload, client, came.seconds)
        return True

    def forget(self, now: float) -> None:
        """Wait no more for answers that will not come."""
        self.pending = {
            name: (client, at)
            for name, (client, at) in self.pending.items()
            if now - at < ECHO_SECONDS
        }

    def seconds(self, clients: int) -> Floats:
        """Return each client's mean, shrunk to the fleet's, shape (clients,); 0 where none is."""
        return _means(self.seen, clients)

    def upload_seconds(self, clients: int) -> Floats:
        """Return the same of the answers' uploads, shape (clients,)."""
        return _means(self.seen_upload, clients)


def _folded(seen: ClientMeans, client: int, seconds: float) -> ClientMeans:
    if client >= len(seen.mean):
        seen = with_unseen(seen, client + 1)
    return fold(seen, np.array([client]), np.array([max(seconds, 1e-3)]), FORGET)


def _means(seen: ClientMeans, clients: int) -> Floats:
    seen = with_unseen(seen, max(clients, len(seen.mean)))
    if seen.errors:
        return shrunk(seen, FORGET)[:clients]
    heard = seen.mean[seen.observations > 0]
    return np.full(clients, float(heard.mean()) if len(heard) else 0.0)
