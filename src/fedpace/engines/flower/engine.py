"""Clients on other machines, by Flower: one message a participant, and a clock that is the wall's.

The engine has its own loop of pushes and pulls: each answer is seen as it arrives, and how fast it
came. The client adds how long it trained, and empty messages show what any message takes; what is
left was the download (docs/flower.md).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedpace.core.errors import RunError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.record import LateRecord
from fedpace.engines.exchange import encode_task, upload_bytes
from fedpace.engines.flower.arrivals import SeesUploads, Upload
from fedpace.engines.flower.echoes import Echoes
from fedpace.engines.flower.messages import Wire, body_bytes, read_update, task_content, told
from fedpace.engines.flower.roster import Roster
from fedpace.engines.flower.traffic import Traffic
from fedpace.federation.engine import Delivery, RoundOutcome
from fedpace.wireless.network import Network, charge

ROSTER_SECONDS = 1.0
"""Between looks at who is there; answers are looked for more often."""
ECHOES = 2
"""Empty messages to each client before its first round."""
ECHO_PATIENCE_SECONDS = 20.0
"""Waited for the answers to one; a plain Flower project starts a process for each."""
FASTEST_BPS = 1e9
"""No link is taken to be faster, however little of a message's seconds seems to be transfer."""
LATE_FACTOR = 10.0
"""Deadlines of its round for which an answer is waited for while others are asked: it counts no
more, but tells how fast its client is."""
CLOCK_SKEW_SECONDS = 60.0
"""Flower compares times of both ends: a client whose clock is off by more cannot answer in time."""


@dataclass(frozen=True, slots=True)
class RoundStatus:
    """A round on its way, for whoever watches."""

    round_index: int
    invited: int
    away: int
    """How many of those invited were not reachable when the round began."""
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
    began: float
    """When its round did."""
    until: float
    """When the answer is not waited for any more, late as it is."""


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
    traffic: Traffic = field(default_factory=Traffic)
    """What is charged beside the blocks of the messages."""
    echoes: Echoes = field(default_factory=Echoes)
    """What is known of the seconds of an empty message; engines of one fleet share it."""
    poll_seconds: float = 0.05
    accepted: Callable[[int], int] = lambda client: 0
    """How many updates of a client were used so far; the client is told."""
    refused: Callable[[int], str] = lambda client: ""
    """Why a client's last update was not; the client is told."""
    show: Callable[[RoundStatus], None] = lambda status: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _zero: float = field(init=False)
    _ended: float = field(init=False)
    """When the last round did."""
    _late: dict[str, _Sent] = field(init=False, default_factory=dict)
    """What is still to come of earlier rounds; its clients are asked nothing else meanwhile."""

    def __post_init__(self) -> None:
        self._zero = self.clock() - self.began
        self._ended = self.began

    def now(self) -> float:
        """Seconds since the run began, without those in which no server ran."""
        return self.clock() - self._zero

    def run_round(self, round_index: int, tasks: Sequence[ClientTask]) -> RoundOutcome:
        """Send every reachable client its task and take the answers until all are in, or late."""
        between, echoes = self.now() - self._ended, self.echoes.sent
        self._first_echoes()
        late: list[LateRecord] = []
        began = self.now()
        limit = self.deadline(tasks) if tasks else 0.0
        if tasks:
            late += self._wait_for_anyone(tasks, began + limit)
        pending = self._send(tasks, limit, began)
        if pending:
            self._echo_of_one_who_waits(round_index, tasks)
        status = RoundStatus(round_index, len(tasks), len(tasks) - len(pending), 0, began, limit)
        found: dict[int, tuple[ClientUpdate, Delivery]] = {}
        overhead: list[float] = []
        unreadable: list[tuple[int, str]] = []
        failed: list[tuple[int, str]] = []
        busy, beside = 0.0, np.zeros(2, dtype=np.int64)
        looked, gone = self.now(), set[str]()
        self.show(status)
        while pending and self.now() < began + limit:
            for reply in self.grid.pull_messages([*pending, *self.echoes.pending, *self._late]):
                came = self._upload(reply)
                if self.echoes.heard(reply, self.now(), came):
                    continue
                if (old := self._late.pop(reply.metadata.reply_to_message_id, None)) is not None:
                    late += self._received_late(reply, old, came)
                    continue
                sent = pending.pop(reply.metadata.reply_to_message_id, None)
                if sent is None:
                    continue
                busy += self.now() - sent.at
                if reply.has_error():
                    failed.append((sent.task.client, told(reply.error.reason or "no reason given")))
                    continue
                try:
                    update, delivery, seconds = self._received(reply, sent, came)
                    found[sent.task.client] = update, delivery
                    overhead.append(seconds)
                except RunError as error:
                    unreadable.append((sent.task.client, told(error)))
                    beside += (self._charged_up(reply.content), sent.download_bytes)
                self.show(replace(status, answered=len(found)))
            for name in gone & pending.keys():  # and what they had sent before is not complete
                busy += self.now() - pending.pop(name).at
            if pending:
                if self.now() - looked > ROSTER_SECONDS:
                    self.roster.poll()
                    looked = self.now()
                    online = self.roster.online
                    gone = {name for name, sent in pending.items() if sent.node not in online}
                    self._forget_late()
                self.sleep(self.poll_seconds)
        # In the order of the tasks: the sum over clients is then the same on every engine.
        answers = [found[t.client] for t in tasks if t.client in found]
        ended = self.now()
        busy += sum(ended - sent.at for sent in pending.values())
        idle = len(self.roster.online) * (ended - self._ended) - busy
        beside += self.traffic.polls(len(answers) + len(unreadable), idle)
        echoes = self.echoes.sent - echoes
        self._late |= pending
        self.echoes.pending.clear()  # what comes later would seem to have taken longer
        beside += (echoes * self.traffic.empty_up, echoes * self.traffic.empty_down)
        self._ended = ended
        return RoundOutcome(
            [update for update, _ in answers],
            [delivery for _, delivery in answers],
            ended - began,
            unreadable,
            failed,
            late,
            other_upload_bytes=int(beside[0]),
            other_download_bytes=int(beside[1]),
            overhead_seconds=between + float(np.mean(overhead)) if overhead else None,
        )

    def _first_echoes(self) -> None:
        """Learn what an empty message takes with each client that is there for the first time."""
        new = [each for each in self._there() if each[0] not in self.echoes.asked]
        for _ in range(ECHOES if new else 0):
            began = self.now()
            self.echoes.send(self.grid, new, began)
            while self.echoes.pending and self.now() < began + ECHO_PATIENCE_SECONDS:
                for reply in self.grid.pull_messages(list(self.echoes.pending)):
                    self.echoes.heard(reply, self.now(), self._upload(reply))
                self.sleep(self.poll_seconds)
            if self.echoes.pending:
                return  # what is not answered may be waited for in the round

    def _echo_of_one_who_waits(self, round_index: int, tasks: Sequence[ClientTask]) -> None:
        """One at a time, so that the others' links are left to them."""
        asked = {t.client for t in tasks}
        waiting = [each for each in self._there() if each[0] not in asked]
        if waiting:
            self.echoes.send(self.grid, [waiting[round_index % len(waiting)]], self.now())

    def _there(self) -> list[tuple[int, int]]:
        """Return position and node of all clients of the population that are there."""
        nodes = enumerate(map(self.roster.node_of, range(len(self.roster.names))))
        return [(client, node) for client, node in nodes if node is not None]

    def _wait_for_anyone(self, tasks: Sequence[ClientTask], end: float) -> list[LateRecord]:
        """Wait until somebody can be asked; returns what came meanwhile of earlier rounds.

        With nobody a round would be over at once, and soon the whole run.
        """
        late: list[LateRecord] = []
        self.roster.poll()
        self._forget_late()
        while not any(map(self._free, tasks)) and self.now() < end:
            self.sleep(ROSTER_SECONDS / 2)
            self.roster.poll()
            self._forget_late()
            for reply in self.grid.pull_messages(list(self._late)):
                came = self._upload(reply)
                sent = self._late.pop(reply.metadata.reply_to_message_id)
                late += self._received_late(reply, sent, came)
        return late

    def _free(self, task: ClientTask) -> bool:
        """Say whether a client is there, and has sent what it was asked for before."""
        busy = any(sent.task.client == task.client for sent in self._late.values())
        return not busy and self.roster.node_of(task.client) is not None

    def _forget_late(self) -> None:
        """Wait no more for whoever went, or came again on another node, or takes too long."""
        self._late = {
            name: sent
            for name, sent in self._late.items()
            if self.now() < sent.until and sent.node == self.roster.node_of(sent.task.client)
        }

    def _send(self, tasks: Sequence[ClientTask], limit: float, began: float) -> dict[str, _Sent]:
        reached = [
            (task, node)
            for task in tasks
            if self._free(task) and (node := self.roster.node_of(task.client)) is not None
        ]
        if not reached:
            return {}
        who = np.array([t.client for t, _ in reached])
        ranks = np.array([t.sketch_rank for t, _ in reached])
        bodies = [encode_task(self.wire.exchange, t) for t, _ in reached]
        up = 8.0 * np.array([self._upload_bytes(t) for t, _ in reached])
        down = 8.0 * np.array([len(body) + self.traffic.message_down for body in bodies])
        start, share = charge(
            self.network, self.seed, reached[0][0].round_index, who, ranks, up, down
        )
        messages, sent = [], []
        for i, (task, node) in enumerate(reached):
            seconds = float(share.finish_seconds[i] - start[i])
            rate_bps = float(up[i]) / seconds
            content = task_content(
                task, self.wire, bodies[i], rate_bps,
                self.accepted(task.client), self.refused(task.client),
            )  # fmt: skip
            messages.append(
                Message(
                    content, dst_node_id=node, message_type=MessageType.TRAIN,
                    ttl=LATE_FACTOR * limit + CLOCK_SKEW_SECONDS,
                    group_id=str(task.round_index),
                )
            )  # fmt: skip
            sent.append(
                _Sent(
                    task, node, body_bytes(content) + self.traffic.message_down,
                    float(share.bandwidth_hz[i]), self.now(), began, began + LATE_FACTOR * limit,
                )
            )  # fmt: skip
        ids = self.grid.push_messages(messages)
        return {name: each for name, each in zip(ids, sent, strict=True) if name}

    def _upload_bytes(self, task: ClientTask) -> int:
        block = upload_bytes(self.wire.exchange, task.sketch_rank)
        return block + self.traffic.message_up

    def _charged_up(self, content: RecordDict) -> int:
        try:
            return body_bytes(content) + self.traffic.message_up
        except RunError:  # it has no block
            return self.traffic.message_up

    def _upload(self, reply: Message) -> Upload | None:
        if not isinstance(self.grid, SeesUploads) or reply.has_error():
            return None
        return self.grid.upload(reply.metadata.reply_to_message_id)

    def _received(
        self, reply: Message, sent: _Sent, came: Upload | None
    ) -> tuple[ClientUpdate, Delivery, float]:
        """Read an answer; returns the update, how it went, and the seconds of overhead in it."""
        if reply.metadata.src_node_id != sent.node:
            raise RunError(f"node {reply.metadata.src_node_id} answers for node {sent.node}")
        update, train_seconds = read_update(reply.content, sent.task, self.wire)
        arrived = self.now()
        up, down = self._charged_up(reply.content), sent.download_bytes
        upload, download = self._transfers(
            sent.task.client, max(arrived - sent.at - train_seconds, 1e-6), came, up, down
        )
        overhead = max(arrived - sent.at - train_seconds - upload - download, 0.0)
        delivery = Delivery(
            download_bytes=down,
            upload_bytes=up,
            start_seconds=arrived - sent.began - overhead - upload,
            upload_seconds=upload,
            bandwidth_hz=sent.bandwidth_hz,
        )
        return update, delivery, overhead

    def _received_late(self, reply: Message, sent: _Sent, came: Upload | None) -> list[LateRecord]:
        """Read an answer to an earlier round for what it tells of its client's seconds."""
        if reply.has_error():
            return []
        try:
            update, went, _ = self._received(reply, sent, came)
        except RunError:
            return []
        return [
            LateRecord(
                update.client, update.round_index, len(update.components), went.upload_bytes,
                went.start_seconds, went.upload_seconds, went.bandwidth_hz,
            )
        ]  # fmt: skip

    def _transfers(
        self, client: int, rest: float, came: Upload | None, up: int, down: int
    ) -> tuple[float, float]:
        """Return the seconds of upload and download in what was not training.

        An empty message would have taken part of the rest, with the same requests. What is beyond
        moved the two blocks. The upload is timed by its bytes where they were seen, else by how
        much longer the answer was coming than an empty one; the requests moved at the same rates.
        Where nobody saw the answer come, the two share by bytes.
        """
        clients = len(self.network.clients)
        beyond = rest - float(self.echoes.seconds(clients)[client])
        block_up, block_down = up - self.traffic.message_up, down - self.traffic.message_down
        fastest = 8 / FASTEST_BPS
        if came is None:
            seconds_a_byte = max(beyond / (block_up + block_down), fastest)
            upload, download = seconds_a_byte * up, seconds_a_byte * down
        else:
            coming = came.seconds - float(self.echoes.upload_seconds(clients)[client])
            if came.seconds_a_byte is not None:
                coming = came.seconds_a_byte * block_up
            upload = max(coming / block_up, fastest) * up
            download = max((beyond - coming) / block_down, fastest) * down
        within = min(1.0, rest / (upload + download))
        return within * upload, within * download
