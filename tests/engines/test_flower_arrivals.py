"""Replies that come in parts: nobody waits for another's."""

from types import SimpleNamespace

import pytest

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.task_identity import TaskIdentity

from fedpace.engines.flower.arrivals import Arrivals, Upload

pytestmark = pytest.mark.flower


class Server:
    """Flower's interface for a run, as far as arrivals use it: a reply is announced once, and its
    objects come when a test says so."""

    def __init__(self):
        self.announced, self.objects, self.expected, self.confirmed = {}, {}, set(), []
        self.now = 0.0

    def announce(self, reply):
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            asked = reply.metadata.reply_to_message_id
            head = message_to_proto(remove_content_from_message(reply))
            self.announced[asked] = head, get_object_tree(reply)
            parts = {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}
        self.expected |= set(parts)
        return parts

    def PullMessages(self, request):  # noqa: N802
        found = [self.announced.pop(m) for m in request.message_ids if m in self.announced]
        return SimpleNamespace(
            messages_list=[head for head, _ in found],
            message_object_trees=[tree for _, tree in found],
        )

    def PullObject(self, request):  # noqa: N802
        name = request.object_id
        return SimpleNamespace(
            object_found=name in self.expected,
            object_available=name in self.objects,
            object_content=self.objects.get(name, b""),
        )

    def ConfirmMessageReceived(self, request):  # noqa: N802
        self.confirmed.append(request.message_object_id)


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def arrivals(server):
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    flower = SimpleNamespace(
        _runtime_client=server, node=Node(node_id=1), run=SimpleNamespace(run_id=1)
    )
    return Arrivals(flower, clock=lambda: server.now)


def reply_to(name, number):
    """An answer with two records, to a message of that name."""
    content = RecordDict({"body": ConfigRecord({"bytes": bytes([number]) * 50}),
                          "more": ArrayRecord()})  # fmt: skip
    asked = Message(RecordDict(), dst_node_id=2, message_type="train")
    asked.metadata.__dict__["_message_id"] = name
    return Message(content, reply_to=asked)


def said(found):
    return [m.content["body"]["bytes"][0] for m in found]


def test_a_reply_is_returned_when_all_of_it_is_there_and_once(server, arrivals):
    parts = server.announce(reply_to("a", 1))
    assert len(parts) > 3
    for name, content in parts.items():
        assert arrivals.pull_messages(["a"]) == []
        server.objects[name] = content
    [found] = arrivals.pull_messages(["a"])
    assert said([found]) == [1]
    assert found.metadata.reply_to_message_id == "a"
    assert server.confirmed == [found.metadata.message_id]
    assert arrivals.pull_messages(["a"]) == []


def test_an_upload_is_timed_from_its_announcement_to_its_last_part(server, arrivals):
    server.now = 5.0
    parts = server.announce(reply_to("a", 1))
    for name, content in parts.items():
        assert arrivals.pull_messages(["a"]) == []
        server.objects[name] = content
        server.now += 1.0
    assert said(arrivals.pull_messages(["a"])) == [1]
    assert arrivals.upload("a") == Upload(len(parts))


def test_the_bytes_of_the_largest_part_tell_the_rate_where_they_were_seen(server):
    flower = SimpleNamespace(
        _runtime_client=server, node=Node(node_id=1), run=SimpleNamespace(run_id=1)
    )
    parts = server.announce(reply_to("a", 1))
    largest = max(parts, key=lambda name: len(parts[name]))
    seen = {name: 7.0 if name == largest else 1.0 for name in parts}
    arrivals = Arrivals(flower, clock=lambda: 0.0, seconds_a_byte=seen.get)
    server.objects.update(parts)
    assert said(arrivals.pull_messages(["a"])) == [1]
    assert arrivals.upload("a") == Upload(0.0, 7.0)


def test_one_that_never_ends_holds_up_nobody(server, arrivals):
    unfinished = server.announce(reply_to("a", 1))
    server.objects.update([next(iter(unfinished.items()))])
    for number in (2, 3):
        server.objects.update(server.announce(reply_to(str(number), number)))
        assert said(arrivals.pull_messages(["a", str(number)])) == [number]
    server.objects.update(unfinished)
    assert said(arrivals.pull_messages(["a"])) == [1]


def test_whoever_does_not_ask_for_it_does_not_get_it(server, arrivals):
    """The roster and a round look for answers to their own messages."""
    server.objects.update(server.announce(reply_to("a", 1)))
    assert arrivals.pull_messages(["b"]) == []
    assert said(arrivals.pull_messages(["a"])) == [1]


def test_what_the_server_dropped_is_an_error(server, arrivals):
    parts = server.announce(reply_to("a", 1))
    assert arrivals.pull_messages(["a"]) == []
    server.expected -= set(parts)
    [found] = arrivals.pull_messages(["a"])
    assert found.has_error() and found.error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert found.metadata.reply_to_message_id == "a"
    assert server.confirmed == [] and arrivals.pull_messages(["a"]) == []
