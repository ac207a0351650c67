"""Who sends now, what the kernel's classes are set to for it, and when each passed which point.

All times are of one clock, this machine's: server and clients tell the shaper what they are about
to do, and the classes' own counters say when an upload has passed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedpace.core.profile import Clients, Floats
from fedpace.testbed.band import Shares, assigned, borrowing, one_efficiency, split, within_band
from fedpace.testbed.classes import FRAME_BYTES, PAYLOAD_BYTES, Classes, Count
from fedpace.wireless.channel import faded, fading_gains
from fedpace.wireless.network import Network

_PASSED = 0.98
"""An upload has passed when so much of it has, and its queue is empty: requests are no part."""


FETCH_BYTES = 6000.0
"""Size of the requests by which a node fetches its task; no less is taken to be left of an
answer."""


@dataclass(slots=True)
class Passage:
    """One client's part in a round; times in s on the machine's clock, None until they come."""

    client: int
    round_index: int
    rate_bps: float
    """Assigned by the server, of payload."""
    assigned_at: float
    """The server is about to send the task."""
    fetched_at: float | None = None
    """The task is with the client."""
    sending_at: float | None = None
    """The answer is about to leave."""
    sent_at: float | None = None
    """The last of it passed the access point."""
    arrived_at: float | None = None
    """The server has the answer."""
    upload_bytes: int = 0
    """Size of the answer's block."""
    wire_bytes: int = 0
    """Frames that passed between `sending_at` and `sent_at`."""
    overrun_seconds: float = 0.0
    """By how much this machine trained slower than the profile says."""

    @property
    def uses_band(self) -> bool:
        """Whether it has something on the uplink: the requests for its task, or its answer."""
        return self.fetched_at is None or (self.sending_at is not None and self.sent_at is None)


@dataclass(slots=True)
class Shaper:
    """Sets the classes of one access point."""

    classes: Classes
    network: Network
    seed: int
    clock: Callable[[], float] = time.monotonic
    passages: list[Passage] = field(default_factory=list)
    """All so far, in the order of their beginnings."""
    changes: list[float] = field(default_factory=list)
    """How long each live change took, s."""
    _now: dict[int, Passage] = field(default_factory=dict)
    _before: dict[int, int] = field(default_factory=dict)
    """Frames of a client's class when its answer began to leave, bytes."""
    _links: Clients | None = None
    """As they are at present: each as in the round that its client was last asked in."""
    _gains: Floats | None = None

    @property
    def sending(self) -> bool:
        """Whether an upload is on its way, so that `look` is of use."""
        return any(p.sending_at is not None and p.sent_at is None for p in self._now.values())

    def assign(self, round_index: int, rates: Sequence[tuple[int, float]]) -> None:
        """A task is about to leave to each of these clients, with its rate, bit/s."""
        now = self.clock()
        for client, rate in rates:
            passage = Passage(client, round_index, rate, now)
            self._now[client] = passage
            self.passages.append(passage)
        self._links = clients = self.network.clients
        if self.network.fading:
            if self._gains is None:
                self._gains = np.ones(len(clients))
            asked = [client for client, _ in rates]
            self._gains[asked] = fading_gains(self.seed, round_index, len(clients))[asked]
            self._links = faded(clients, self._gains)
        self._apply()

    def fetched(self, client: int) -> None:
        """The task has come to the client, which now trains."""
        self._now[client].fetched_at = self.clock()
        self._apply_if_live()

    def send(self, client: int, upload_bytes: int, overrun_seconds: float) -> None:
        """The client is about to send."""
        passage = self._now[client]
        passage.upload_bytes, passage.overrun_seconds = upload_bytes, overrun_seconds
        self._before[client] = self.classes.count()[client].sent_bytes
        passage.sending_at = self.clock()
        self._apply_if_live()

    def look(self) -> None:
        """See whose upload has passed."""
        if not self.sending:
            return
        counts = self.classes.count()
        done = [c for c, p in self._now.items() if _passed(p, counts[c], self._before.get(c, 0))]
        for client in done:
            self._passed(client, counts)
        if done:
            self._apply_if_live()

    def arrive(self, clients: Sequence[int]) -> None:
        """The server has the answers of these clients."""
        counts = self.classes.count()
        for client in clients:
            if client in self._now:
                self._passed(client, counts)
                self._now.pop(client).arrived_at = self.clock()
        self._apply()

    def _passed(self, client: int, counts: Sequence[Count]) -> None:
        passage = self._now[client]
        if passage.sending_at is not None and passage.sent_at is None:
            passage.sent_at = self.clock()
            passage.wire_bytes = counts[client].sent_bytes - self._before[client]

    def _apply_if_live(self) -> None:
        if self.network.allocation == "work-conserving":
            self._apply()

    def _apply(self) -> None:
        shares = self._shares()
        began = self.clock()
        self.classes.change(shares.root_bps, shares.leaves)
        self.changes.append(self.clock() - began)

    def _shares(self) -> Shares:
        links, total = self._links or self.network.clients, self.network.system.bandwidth_hz
        if self.network.allocation != "work-conserving":
            rates = {client: passage.rate_bps for client, passage in self._now.items()}
            if len({passage.round_index for passage in self._now.values()}) > 1:
                rates = within_band(rates, links, total)  # some are late, and still on the air
            return assigned(rates, links, total)
        efficiency = one_efficiency(links)
        if efficiency is not None:
            return borrowing(np.array(sorted(self._now), dtype=np.int64), links, total, efficiency)
        senders = {client: p for client, p in sorted(self._now.items()) if p.uses_band}
        counts = self.classes.count() if any(p.sending_at for p in senders.values()) else []
        return split({c: self._left(p, counts) for c, p in senders.items()}, links, total)

    def _left(self, passage: Passage, counts: Sequence[Count]) -> float:
        """Bits that a client still has to send."""
        if passage.sending_at is None:
            return 8 * FETCH_BYTES
        passed = counts[passage.client].sent_bytes - self._before[passage.client]
        return 8 * max(passage.upload_bytes - passed * PAYLOAD_BYTES / FRAME_BYTES, FETCH_BYTES)


def _passed(passage: Passage, count: Count, before: int) -> bool:
    if passage.sending_at is None or passage.sent_at is not None or count.backlog_bytes:
        return False
    frames = passage.upload_bytes * FRAME_BYTES / PAYLOAD_BYTES
    return count.sent_bytes - before >= _PASSED * frames
