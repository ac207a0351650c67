"""Answers that are on their way, without waiting for any of them, and how long each was on it.

Flower announces a reply when its sender begins to upload it, once, and Flower's grid then waits
until all of it is there: one slow client holds up the server's loop, and one that dies in the
middle stops it for many minutes. Here what has come of each reply is kept from look to look, and a
look returns those that are complete. From the announcement to the last part passes the upload, seen
from the server's end alone.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, cast, runtime_checkable

from flwr.app import Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.superlink.grid import HttpGrid

COMING_SECONDS = 3600.0
"""What is not complete by then is forgotten."""


@dataclass(slots=True)
class _Reply:
    name: str
    missing: list[str]
    """Objects it is made of that have not come."""
    since: float
    objects: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Upload:
    """How an answer came."""

    seconds: float
    """From its announcement until its last part was there."""
    seconds_a_byte: float | None = None
    """That of its largest part, first to last byte, where someone saw the bytes come."""


@runtime_checkable
class SeesUploads(Protocol):
    """A grid that sees how an answer came."""

    def upload(self, asked: str) -> Upload:
        """Return, once, how the reply to a message that was pulled came."""


def _nobody_saw(object_id: str) -> float | None:
    return None


class Arrivals(Grid):
    """A grid whose `pull_messages` waits for nothing; all else is Flower's."""

    def __init__(
        self,
        grid: HttpGrid,
        clock: Callable[[], float] = time.monotonic,
        seconds_a_byte: Callable[[str], float | None] = _nobody_saw,
    ) -> None:
        self._grid, self._clock, self._seconds_a_byte = grid, clock, seconds_a_byte
        self._coming: dict[str, _Reply] = {}
        self._came: dict[str, Upload] = {}

    def upload(self, asked: str) -> Upload:
        """Return, once, how the reply to a message that was pulled came.

        Its first and its last part are seen up to a look late, both: the mean is not moved.
        """
        return self._came.pop(asked)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to these messages that are complete, each once."""
        now, asked = self._clock(), list(message_ids)
        self._coming = {m: r for m, r in self._coming.items() if now - r.since < COMING_SECONDS}
        new = [message for message in asked if message not in self._coming]
        found = self._grid._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=new))
        for reply, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            parts = list(dict.fromkeys(each.object_id for each in iterate_object_tree(tree)))
            name = reply.metadata.message_id
            self._coming[reply.metadata.reply_to_message_id] = _Reply(name, parts, now)
        return [m for name in asked if name in self._coming and (m := self._look(name)) is not None]

    def _look(self, asked: str) -> Message | None:
        """Take what has come of a reply; returns it when that is all."""
        reply, client = self._coming[asked], self._grid._runtime_client
        node, run_id = self._grid.node, self._grid.run.run_id
        while reply.missing:
            part = client.PullObject(
                PullObjectRequest(node=node, run_id=run_id, object_id=reply.missing[0])
            )
            if not part.object_found:
                del self._coming[asked]
                return _lost(asked, self._grid)
            if not part.object_available:
                return None
            reply.objects[reply.missing.pop(0)] = part.object_content
        del self._coming[asked]
        client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=node, run_id=run_id, message_object_id=reply.name)
        )
        largest = max(reply.objects, key=lambda name: len(reply.objects[name]))
        speeds = {name: self._seconds_a_byte(name) for name in reply.objects}
        self._came[asked] = Upload(self._clock() - reply.since, speeds[largest])
        message = cast(Message, inflate_object_from_contents(reply.name, reply.objects))
        message.metadata.__dict__["_message_id"] = reply.name  # as Flower's grid has it
        return message

    def set_run(self, run: Run) -> None:
        """As Flower's."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """Flower's."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """As Flower's."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """As Flower's."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """As Flower's."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As Flower's."""
        return self._grid.push_messages(messages)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """As Flower's."""
        return self._grid.send_and_receive(messages, timeout=timeout)


def _lost(asked: str, grid: HttpGrid) -> Message:
    """The reply to a message whose answer the server no longer has."""
    node = grid.node.node_id
    return make_message(
        metadata=Metadata(
            run_id=grid.run.run_id, message_id="", src_node_id=node, dst_node_id=node, group_id="",
            created_at=time.time(), ttl=0, message_type="system", reply_to_message_id=asked,
        ),
        error=Error(ErrorCode.MESSAGE_UNAVAILABLE, "its sender ended before it was all there"),
    )  # fmt: skip
