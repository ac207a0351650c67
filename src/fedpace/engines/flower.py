"""Clients on other machines, by Flower: one message a participant, and a clock that is the wall's.

The engine has its own loop of pushes and pulls: each answer is seen as it arrives. What Flower
shows a server of a client's round is its end alone, so the client adds how long it trained; the
rest is shared out between download and upload by their bytes (docs/flower.md).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from fedpace.core.errors import RunError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.engines.codec import encoded_bytes
from fedpace.engines.flower_messages import Wire, body_bytes, read_update, task_content, told
from fedpace.engines.flower_roster import Roster
from fedpace.engines.simulated import Network, charge
from fedpace.federation.engine import Delivery, RoundOutcome

ROSTER_SECONDS = 1.0
"""Between looks at who is there; answers are looked for more often."""
CLOCK_SKEW_SECONDS = 60.0
"""Flower compares times of both ends: a client whose clock is off by more cannot answer in time."""


@dataclass(frozen=True, slots=True)
class RoundStatus:
    """A round on its way, for whoever watches."""

    round_index: int
    invited: int
    away: int
    """Of those invited, not reachable when the round began."""
    answered: int
    began: float
    """On the engine's clock, s."""
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class _Sent:
    task: ClientTask
    node: int
    download_bytes: int
    bandwidth_hz: float
    at: float


@dataclass(slots=True, eq=False)
class FlowerEngine:
    """An `Engine` whose clients are Flower nodes."""

    grid: Grid
    roster: Roster
    wire: Wire
    network: Network
    """What is thought of the clients' links: the band is divided by it, and the rates are sent."""
    seed: int
    deadline: Callable[[Sequence[ClientTask]], float]
    """Seconds that a round waits for the answers to these tasks at most."""
    began: float = 0.0
    """What the clock showed when this engine was made, s; a resumed run goes on from there."""
    poll_seconds: float = 0.05
    accepted: Callable[[int], int] = lambda client: 0
    """How many updates of a client were used so far; the client is told."""
    show: Callable[[RoundStatus], None] = lambda status: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _zero: float = field(init=False)

    def __post_init__(self) -> None:
        self._zero = self.clock() - self.began

    def now(self) -> float:
        """Seconds since the run began, without those in which no server ran."""
        return self.clock() - self._zero

    def run_round(self, round_index: int, tasks: Sequence[ClientTask]) -> RoundOutcome:
        """Send every reachable client its task and take the answers until all are in, or late."""
        began = self.now()
        if not tasks:
            return RoundOutcome([], [], self.now() - began)
        limit = self.deadline(tasks)
        self._wait_for_anyone(tasks, began + limit)
        pending = self._send(tasks, limit)
        status = RoundStatus(round_index, len(tasks), len(tasks) - len(pending), 0, began, limit)
        found: dict[int, tuple[ClientUpdate, Delivery]] = {}
        unreadable: list[tuple[int, str]] = []
        looked = self.now()
        self.show(status)
        while pending and self.now() < began + limit:
            for reply in self.grid.pull_messages(list(pending)):
                sent = pending.pop(reply.metadata.reply_to_message_id, None)
                if sent is None or reply.has_error():
                    continue  # a client that failed is one that did not answer
                try:
                    found[sent.task.client] = self._received(reply, sent, began)
                except RunError as error:
                    unreadable.append((sent.task.client, told(error)))
                self.show(replace(status, answered=len(found)))
            if pending:
                if self.now() - looked > ROSTER_SECONDS:
                    self.roster.poll()
                    looked = self.now()
                self.sleep(self.poll_seconds)
        # In the order of the tasks: the sum over clients is then the same on every engine.
        answers = [found[t.client] for t in tasks if t.client in found]
        return RoundOutcome(
            [update for update, _ in answers],
            [delivery for _, delivery in answers],
            self.now() - began,
            unreadable,
        )

    def _wait_for_anyone(self, tasks: Sequence[ClientTask], end: float) -> None:
        """With nobody there a round would be over at once, and soon the whole run."""
        self.roster.poll()
        while all(self.roster.node_of(t.client) is None for t in tasks) and self.now() < end:
            self.sleep(ROSTER_SECONDS / 2)
            self.roster.poll()

    def _send(self, tasks: Sequence[ClientTask], limit: float) -> dict[str, _Sent]:
        reached = [(t, node) for t in tasks if (node := self.roster.node_of(t.client)) is not None]
        if not reached:
            return {}
        who = np.array([t.client for t, _ in reached])
        ranks = np.array([t.sketch_rank for t, _ in reached])
        bits = 8.0 * np.array([self._upload_bytes(t) for t, _ in reached])
        start, share = charge(self.network, self.seed, reached[0][0].round_index, who, ranks, bits)
        messages, sent = [], []
        for i, (task, node) in enumerate(reached):
            seconds = float(share.finish_seconds[i] - start[i])
            rate_bps = float(bits[i]) / seconds
            content = task_content(task, self.wire, rate_bps, self.accepted(task.client))
            messages.append(
                Message(
                    content, dst_node_id=node, message_type=MessageType.TRAIN,
                    ttl=limit + CLOCK_SKEW_SECONDS,
                    group_id=str(task.round_index),
                )
            )  # fmt: skip
            sent.append(
                _Sent(task, node, body_bytes(content), float(share.bandwidth_hz[i]), self.now())
            )
        ids = self.grid.push_messages(messages)
        return {name: each for name, each in zip(ids, sent, strict=True) if name}

    def _upload_bytes(self, task: ClientTask) -> int:
        return encoded_bytes(self.wire.sent, task.sketch_rank, self.wire.upload_type)

    def _received(self, reply: Message, sent: _Sent, began: float) -> tuple[ClientUpdate, Delivery]:
        if reply.metadata.src_node_id != sent.node:
            raise RunError(f"node {reply.metadata.src_node_id} answers for node {sent.node}")
        update, train_seconds = read_update(reply.content, sent.task, self.wire)
        arrived = self.now()
        upload_bytes = body_bytes(reply.content)
        # Between sending and arriving it trained, and the rest went into both directions.
        transfer = max(arrived - sent.at - train_seconds, 1e-6)
        upload = transfer * upload_bytes / (upload_bytes + sent.download_bytes)
        return update, Delivery(
            download_bytes=sent.download_bytes,
            upload_bytes=upload_bytes,
            start_seconds=arrived - began - upload,
            upload_seconds=upload,
            bandwidth_hz=sent.bandwidth_hz,
        )
