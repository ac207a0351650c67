"""A client that does not keep to the rules, against Flower's real server behind the proxy.

The test itself is the client: it holds a key that may join, and calls what it likes.
"""

import json
from copy import copy

import httpx
import pytest

pytest.importorskip("flwr")

from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message.message import make_message, remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from deploy.processes import admit, server_behind_its_proxy, submit, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.flower]


class Client:
    """A client in the test's own hands, at the proxy or, as no real one can, at the server."""

    def __init__(self, server, key, port):
        private = load_ssh_private_key(key.read_bytes(), None)
        self.calls = []
        self.fleet = FleetHttpClient.from_server_address(
            f"localhost:{port}", False, server.ca.read_bytes(),
            interceptors=[NodeAuthHttpInterceptor(private, private.public_key()), self],
        )  # fmt: skip
        public = public_key_to_bytes(private.public_key())
        joined = self.fleet.ActivateNode(
            ActivateNodeRequest(public_key=public, heartbeat_interval=30.0)
        )
        self.node = Node(node_id=joined.node_id)

    def intercept(self, context, call_next):
        self.calls.append(context.request)
        return call_next(context)

    def pull(self):
        found = self.fleet.PullMessages(PullMessagesRequest(node=self.node)).messages_list
        return message_from_proto(found[0]) if found else None

    def push(self, message):
        """Push a message and its parts; return whether the server took it."""
        message.metadata.__dict__["_message_id"] = message.object_id
        proto = message_to_proto(remove_content_from_message(message))
        answer = self.fleet.PushMessages(
            PushMessagesRequest(
                node=self.node, messages_list=[proto],
                message_object_trees=[get_object_tree(message)],
            )
        )  # fmt: skip
        for name, part in get_all_nested_objects(message).items():
            if name in answer.objects_to_push:
                self.fleet.PushObject(
                    PushObjectRequest(
                        node=self.node, run_id=message.metadata.run_id, object_id=name,
                        object_content=part.deflate(), session_id=answer.session_id,
                    )
                )  # fmt: skip
        return bool(answer.objects_to_push)


def content(text):
    return RecordDict({"part": ConfigRecord({"bytes": text.encode()})})


def answer(task, text, **metadata):
    return forge(Message(content(text), reply_to=task).metadata, text, **metadata)


def forge(metadata, text, **changes):
    metadata = copy(metadata)
    for name, value in changes.items():
        assert f"_{name}" in metadata.__dict__
        metadata.__dict__[f"_{name}"] = value
    return make_message(metadata=metadata, content=content(text))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with server_behind_its_proxy(tmp_path_factory.mktemp("messages")) as running:
        yield running


@pytest.fixture(scope="module")
def keys(server):
    return {name: admit(server, name) for name in ("rogue", "victim")}


@pytest.fixture(scope="module")
def rogue(server, keys):
    client = Client(server, keys["rogue"], server.outer)
    yield client
    client.fleet.close()


@pytest.fixture(scope="module")
def victim(server, keys):
    client = Client(server, keys["victim"], server.outer)
    yield client
    client.fleet.close()


def start(server, name, client, **config):
    out = server.folder / f"{name}.json"
    done = submit(server, "inner", out, node=str(client.node.node_id), **config)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def next_task(client):
    found = []
    wait_until(lambda: found.append(client.pull()) or found[-1], "the task's arrival", 60)
    return found[-1]


def said(out):
    wait_until(out.exists, "the run's end", 60)
    return json.loads(out.read_text())["said"]


def test_an_answer_counts_once_for_its_own_run_and_from_its_own_sender(server, rogue, victim):
    one = start(server, "one", rogue)
    task_one = next_task(rogue)
    two = start(server, "two", rogue, linger=3.0)
    task_two = next_task(rogue)
    assert task_one.metadata.run_id != task_two.metadata.run_id

    foreign = answer(task_one, "of another run", run_id=task_two.metadata.run_id)
    assert not rogue.push(foreign)
    unknown = answer(task_one, "of no run", run_id=12345)
    with pytest.raises(httpx.HTTPStatusError):
        rogue.push(unknown)
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        victim.push(answer(task_one, "in another's name"))
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        rogue.push(answer(task_one, "as the server", src_node_id=1))

    proper = answer(task_one, "proper")
    assert rogue.push(proper)
    assert said(one) == ["proper"]

    first = answer(task_two, "first")
    assert rogue.push(first)
    assert not rogue.push(answer(task_two, "second"))
    rogue.push(first)
    assert said(two) == ["first"]


def test_a_recorded_call_is_refused_by_the_proxy_where_flower_would_take_it(server, rogue):
    assert rogue.pull() is None
    call = rogue.calls[-1]
    assert rogue.fleet._client.send(call).status_code == 401
    inner = call.url.copy_with(port=server.inner)
    again = httpx.Request("POST", inner, headers=call.headers, content=call.content)
    assert rogue.fleet._client.send(again).status_code == 200


def test_a_client_cannot_send_tasks_to_another_one(server, rogue, victim):
    out = start(server, "three", rogue)
    task = next_task(rogue)

    def forged():
        return forge(task.metadata, "obey", src_node_id=1, dst_node_id=victim.node.node_id)

    with pytest.raises(httpx.HTTPStatusError, match="403"):
        rogue.push(forged())
    assert victim.pull() is None
    # Flower alone takes it: what the check in the proxy is for.
    rogue.fleet._base_url = f"https://localhost:{server.inner}"
    try:
        assert rogue.push(forged())
        assert victim.pull() is not None
    finally:
        rogue.fleet._base_url = f"https://localhost:{server.outer}"
    assert rogue.push(answer(task, "done"))
    assert said(out) == ["done"]
