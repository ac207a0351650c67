"""Flower's grid in memory: every message becomes bytes and is read again, as over a network.

Clients work when they are pulled from, so a test is over as soon as it can be.
"""

from types import SimpleNamespace

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from fedpace.engines.flower.arrivals import Upload


def over_the_wire(message):
    """Take a message apart into bytes and put it together again."""
    name = message.object_id
    parts = {key: part.deflate() for key, part in get_all_nested_objects(message).items()}
    copy = inflate_object_from_contents(name, parts)
    copy.metadata.__dict__["_message_id"] = name
    return copy


class FakeGrid(Grid):
    """`clients`: node id -> app; `faults`: node id -> what is done to its answer; `key_names`:
    node id -> the name that its key was registered under."""

    def __init__(self, apps):
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        self.apps, self.faults, self.waiting, self.sent = dict(apps), {}, {}, []
        self.key_names = {}

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, *arguments, **named):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError

    def get_node_ids(self):
        return sorted(self.apps)

    def get_nodes(self):
        return [
            SimpleNamespace(node_id=node, name=self.key_names.get(node))
            for node in self.get_node_ids()
        ]

    def push_messages(self, messages):
        names = []
        for message in messages:
            received = over_the_wire(message)
            self.sent.append(received)
            self.waiting[received.metadata.message_id] = received
            names.append(received.metadata.message_id)
        return names

    def pull_messages(self, message_ids):
        replies = []
        for name in message_ids:
            if name in self.waiting and (reply := self._answer(self.waiting[name])) is not None:
                del self.waiting[name]
                replies.append(over_the_wire(reply))
        return replies

    def _answer(self, message):
        return self._at_once(message)

    def _at_once(self, message):
        node = message.metadata.dst_node_id
        if node not in self.apps:
            return None
        context = Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
        try:
            reply = self.apps[node](message, context)
        except Exception as error:
            reply = Message(Error(code=6, reason=repr(error)), reply_to=message)
        if message.metadata.message_type == "train" and node in self.faults:
            return self.faults[node](reply)
        return reply


class TimedGrid(FakeGrid):
    """Messages take time on a clock that is told: per node `pause` (s, whatever the message),
    `up` and `down` (byte/s, Flower's requests included) and `work` (s of training, which the
    client states truly). A fifth of the pause lies between an answer's announcement and its end."""

    def __init__(self, apps, clock, traffic, pause, up, down, work):
        super().__init__(apps)
        self.clock, self.traffic = clock, traffic
        self.pause, self.up, self.down, self.work = pause, up, down, work
        self.due, self.ready, self.coming = {}, {}, {}

    def push_messages(self, messages):
        names = super().push_messages(messages)
        for name in names:
            message = self.waiting[name]
            node, reply = message.metadata.dst_node_id, self._at_once(message)
            pause = self.pause[node]()
            up, down, seconds = self.traffic.message_up, self.traffic.message_down, 0.8 * pause
            if message.metadata.message_type == "train":
                seconds += self.work[node]
                if not reply.has_error():
                    reply.content["head"]["train_seconds"] = self.work[node]
                    up += len(reply.content["body"]["bytes"])
                down += len(message.content["body"]["bytes"])
            self.ready[name] = reply
            self.coming[name] = 0.2 * pause + up / self.up[node]
            self.due[name] = self.clock() + seconds + down / self.down[node] + self.coming[name]
        return names

    def upload(self, asked):
        return Upload(self.coming[asked])

    def _answer(self, message):
        name = message.metadata.message_id
        return self.ready[name] if self.clock() >= self.due[name] else None
