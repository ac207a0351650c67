"""Clients on other machines, by Flower: one message a participant, and a clock that is the wall's.

The engine has its own loop of pushes and pulls: each answer is seen as it arrives, and how fast it
came. The client adds how long it trained, and empty messages show what any message takes; what is
left was the download (docs/flower.md).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedpace.core.errors import RunError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.profile import Floats
from fedpace.core.record import LateRecord
from fedpace.engines.exchange import encode_task, upload_bytes
from fedpace.engines.flower.arrivals import SeesUploads, Upload
from fedpace.engines.flower.asked import Answer, Asked, Sent
from fedpace.engines.flower.echoes import Echoes
from fedpace.engines.flower.messages import Wire, body_bytes, read_update, task_content, told
from fedpace.engines.flower.roster import Roster
from fedpace.engines.flower.traffic import Traffic
from fedpace.engines.flower.transfers import transfer_seconds
from fedpace.federation.engine import Delivery, RoundOutcome
from fedpace.wireless.bandwidth import Allocation
from fedpace.wireless.network import Network, charge

ROSTER_SECONDS = 1.0
"""Between looks at who is there; answers are looked for more often."""
ECHOES = 2
"""Empty messages to each client before its first round."""
ECHO_PATIENCE_SECONDS = 20.0
"""Waited for the answers to one; a plain Flower project starts a process for each."""
LATE_FACTOR = 10.0
"""Deadlines of its round for which an answer is waited for while others are asked: it counts no
more, but tells how fast its client is."""
LEAST_SLEEP_SECONDS = 1e-3
"""Between two looks."""
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
    """It waits so long at most; a beat lasts so long."""
    underway: int | None = None
    """Where rounds overlap: how many tasks are on their way, of this beat and earlier ones."""


@dataclass(slots=True)
class _Beside:
    """What passed since the last step beside the updates."""

    between: float
    """Seconds from that step until clients were asked again."""
    echoes: int
    """Empty messages that had been sent before."""
    late: list[LateRecord] = field(default_factory=list)
    overhead: list[float] = field(default_factory=list)
    """Seconds of each answer that were neither training nor transfer."""
    busy: float = 0.0
    """Seconds of all clients together in which they had work."""
    upload_bytes: int = 0
    download_bytes: int = 0


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
    asked: Asked = field(default_factory=Asked)
    """What is on its way; engines of one fleet share it."""
    _zero: float = field(init=False)
    _ended: float = field(init=False)
    """When the last round did."""
    _looked: float = field(init=False, default=-math.inf)
    """When it was last seen who is there."""
    _gone: set[str] = field(init=False, default_factory=set)
    """Messages whose nodes were not there then."""
    _beside: _Beside | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._zero = self.clock() - self.began
        self._ended = self.began

    def now(self) -> float:
        """Seconds since the run began, without those in which no server ran."""
        return self.clock() - self._zero

    def run_round(self, round_index: int, tasks: Sequence[ClientTask]) -> RoundOutcome:
        """Send every reachable client its task and take the answers until all are in, or late."""
        self.asked.give_up()  # of rounds that overlapped
        beside = self._since_last_step()
        self._first_echoes()
        began = self.now()
        limit = self.deadline(tasks) if tasks else 0.0
        if tasks:
            self._wait_for_anyone(lambda: any(map(self._free, tasks)), began + limit)
        sent = self._send(tasks, limit, began)
        if sent:
            self._echo_of_one_who_waits(round_index)
        status = RoundStatus(round_index, len(tasks), len(tasks) - len(sent), 0, began, limit)
        answers = self._take(began + limit, lambda came: not self.asked.pending, status)
        # In the order of the tasks: the sum over clients is then the same on every engine.
        order = {task.client: i for i, task in enumerate(tasks)}
        answers.sort(key=lambda answer: order[answer.sent.task.client])
        outcome = self._outcome(answers, beside)
        self.asked.give_up()
        self.echoes.pending.clear()  # what comes later would seem to have taken longer
        return replace(outcome, round_seconds=self._ended - began)

    def _since_last_step(self) -> _Beside:
        """Return what has passed since the last step, from when clients are asked again."""
        if self._beside is None:
            self._beside = _Beside(self.now() - self._ended, self.echoes.sent)
        return self._beside

    def _take(
        self, until: float, enough: Callable[[list[Answer]], bool], status: RoundStatus
    ) -> list[Answer]:
        """Take what comes until then, or until it is enough."""
        answers: list[Answer] = []
        self.show(status)
        while True:
            came = self._look()
            answers += came
            if came:
                found = sum(answer.update is not None for answer in answers)
                left = None if status.underway is None else len(self.asked.pending)
                self.show(replace(status, answered=found, underway=left))
            if enough(answers) or self.now() >= until:
                return answers
            if self.now() - self._looked > ROSTER_SECONDS:
                self._see_who_is_there()
            self.sleep(min(self.poll_seconds, max(until - self.now(), LEAST_SLEEP_SECONDS)))

    def _look(self) -> list[Answer]:
        """Return what has come, and what will not come any more."""
        asked, beside, found = self.asked, self._since_last_step(), []
        names = [*asked.pending, *self.echoes.pending, *asked.late]
        for reply in self.grid.pull_messages(names) if names else []:
            name, came = reply.metadata.reply_to_message_id, self._upload(reply)
            if self.echoes.heard(reply, self.now(), came):
                continue
            if (old := asked.late.pop(name, None)) is not None:
                beside.late += self._received_late(reply, old, came)
            elif (sent := asked.pending.pop(name, None)) is not None:
                found.append(self._answer(reply, sent, came, beside))
        # What was sent by whoever has gone is not complete.
        lost = [asked.pending.pop(name) for name in list(asked.pending) if name in self._gone]
        now = self.now()
        found += [Answer(sent, now) for sent in (*lost, *asked.overdue(now))]
        for answer in found:
            beside.busy += answer.at - max(answer.sent.at, self._ended)
        return found

    def _answer(self, reply: Message, sent: Sent, came: Upload | None, beside: _Beside) -> Answer:
        if reply.has_error():
            return Answer(sent, self.now(), failed=told(reply.error.reason or "no reason given"))
        try:
            update, delivery, overhead = self._received(reply, sent, came)
        except RunError as error:
            beside.upload_bytes += self._charged_up(reply.content)
            beside.download_bytes += sent.download_bytes
            return Answer(sent, self.now(), unreadable=told(error))
        beside.overhead.append(overhead)
        return Answer(sent, self.now(), update, delivery)

    def _outcome(self, answers: Sequence[Answer], beside: _Beside) -> RoundOutcome:
        """End a step, in which this came; returns what there is to know of it."""
        found = [a for a in answers if a.update is not None and a.delivery is not None]
        unreadable = [(a.sent.task.client, a.unreadable) for a in answers if a.unreadable]
        ended = self.now()
        waiting = self.asked.pending.values()
        busy = beside.busy + sum(ended - max(sent.at, self._ended) for sent in waiting)
        idle = len(self.roster.online) * (ended - self._ended) - busy
        up, down = self.traffic.polls(len(found) + len(unreadable), idle)
        echoes = self.echoes.sent - beside.echoes
        self._ended, self._beside = ended, None
        return RoundOutcome(
            [a.update for a in found if a.update is not None],
            [a.delivery for a in found if a.delivery is not None],
            0.0,
            unreadable,
            [(a.sent.task.client, a.failed) for a in answers if a.failed],
            beside.late,
            other_upload_bytes=beside.upload_bytes + up + echoes * self.traffic.empty_up,
            other_download_bytes=beside.download_bytes + down + echoes * self.traffic.empty_down,
            overhead_seconds=beside.between + float(np.mean(beside.overhead))
            if beside.overhead
            else None,
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

    def _echo_of_one_who_waits(self, round_index: int) -> None:
        """One at a time, so that the others' links are left to them."""
        waiting = [each for each in self._there() if not self.asked.busy(each[0])]
        if waiting:
            self.echoes.send(self.grid, [waiting[round_index % len(waiting)]], self.now())

    def _there(self) -> list[tuple[int, int]]:
        """Return position and node of all clients of the population that are there."""
        nodes = enumerate(map(self.roster.node_of, range(len(self.roster.names))))
        return [(client, node) for client, node in nodes if node is not None]

    def _wait_for_anyone(self, someone: Callable[[], bool], end: float) -> None:
        """Wait until somebody can be asked, and take what comes meanwhile of earlier rounds.

        With nobody a round would be over at once, and soon the whole run.
        """
        self._see_who_is_there()
        while not someone() and self.now() < end:
            self.sleep(ROSTER_SECONDS / 2)
            self._see_who_is_there()
            self._look()

    def _see_who_is_there(self) -> None:
        self.roster.poll()
        self._looked, online = self.now(), self.roster.online
        pending = self.asked.pending.items()
        self._gone = {name for name, sent in pending if sent.node not in online}
        self.asked.forget(self._looked, self.roster.node_of)

    def _free(self, task: ClientTask) -> bool:
        """Say whether a client is there, and has sent what it was asked for before."""
        return not self.asked.busy(task.client) and self.roster.node_of(task.client) is not None

    def _send(self, tasks: Sequence[ClientTask], limit: float, began: float) -> list[Sent]:
        """Ask those of the clients that can be asked; returns what is on its way to them."""
        reached = [
            (task, node)
            for task in tasks
            if self._free(task) and (node := self.roster.node_of(task.client)) is not None
        ]
        if not reached:
            return []
        bodies = [encode_task(self.wire.exchange, task) for task, _ in reached]
        down = [len(body) + self.traffic.message_down for body in bodies]
        start, share = self._charged([task for task, _ in reached], down)
        messages, sent = [], []
        for i, (task, node) in enumerate(reached):
            seconds = float(share.finish_seconds[i] - start[i])
            rate_bps = 8.0 * self._upload_bytes(task) / seconds
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
                Sent(
                    replace(task, adapter={}), node, down[i], float(share.bandwidth_hz[i]),
                    self.now(), began, began + limit, began + LATE_FACTOR * limit,
                )
            )  # fmt: skip
        ids = self.grid.push_messages(messages)
        new = {name: each for name, each in zip(ids, sent, strict=True) if name}
        self.asked.pending |= new
        return list(new.values())

    def _charged(
        self, tasks: Sequence[ClientTask], down: Sequence[int]
    ) -> tuple[Floats, Allocation]:
        """Divide the band among these tasks and what is on its way; the first are these."""
        old = list(self.asked.pending.values())
        all_tasks = [*tasks, *(sent.task for sent in old)]
        return charge(
            self.network,
            self.seed,
            tasks[0].round_index,
            np.array([task.client for task in all_tasks]),
            np.array([task.sketch_rank for task in all_tasks]),
            8.0 * np.array([self._upload_bytes(task) for task in all_tasks]),
            8.0 * np.array([*down, *(sent.download_bytes for sent in old)]),
        )

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
        self, reply: Message, sent: Sent, came: Upload | None
    ) -> tuple[ClientUpdate, Delivery, float]:
        """Read an answer; returns the update, how it went, and the seconds of overhead in it."""
        if reply.metadata.src_node_id != sent.node:
            raise RunError(f"node {reply.metadata.src_node_id} answers for node {sent.node}")
        update, train_seconds = read_update(reply.content, sent.task, self.wire)
        arrived = self.now()
        up, down = self._charged_up(reply.content), sent.download_bytes
        rest, client, count = (
            arrived - sent.at - train_seconds,
            sent.task.client,
            len(self.network.clients),
        )
        empty = (self.echoes.seconds(count)[client], self.echoes.upload_seconds(count)[client])
        upload, download = transfer_seconds(max(rest, 1e-6), came, up, down, self.traffic, empty)
        overhead = max(rest - upload - download, 0.0)
        delivery = Delivery(
            download_bytes=down,
            upload_bytes=up,
            start_seconds=arrived - sent.began - overhead - upload,
            upload_seconds=upload,
            bandwidth_hz=sent.bandwidth_hz,
        )
        return update, delivery, overhead

    def _received_late(self, reply: Message, sent: Sent, came: Upload | None) -> list[LateRecord]:
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
