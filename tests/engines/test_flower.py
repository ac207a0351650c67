"""The Flower engine where things go wrong, on a grid in memory with a clock that is told."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Error, Message

from engines.fake_grid import FakeGrid, over_the_wire
from federation.toy import LAYOUT, exchange, random_adapter, towards
from fedpace.core.errors import RunError
from fedpace.core.messages import ClientTask
from fedpace.core.profile import Clients, System
from fedpace.core.sketch import LEADING, RESIDUAL, SCALED
from fedpace.engines.exchange import encode_task, upload_bytes
from fedpace.engines.flower.client import ClientWork, make_client_app
from fedpace.engines.flower.engine import ECHOES, FlowerEngine
from fedpace.engines.flower.messages import (
    Wire,
    assigned_bps,
    read_task,
    read_update,
    task_content,
)
from fedpace.engines.flower.roster import ASK_AGAIN_SECONDS, Roster
from fedpace.engines.flower.traffic import Traffic
from fedpace.wireless.network import Network

pytestmark = pytest.mark.flower
ROLES = ("A", "B", "head")


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def app(name, examples=3, introduced=None):
    def introduce(offer, context):
        if introduced is not None:
            introduced.append(name)
        return {"name": name, "examples": examples}

    work = ClientWork(lambda method: exchange(), lambda sketch, trained: towards(random_adapter(9)))
    return make_client_app(introduce, lambda context: work)


@pytest.fixture
def world():
    grid, clock = FakeGrid({10: app("a"), 11: app("b"), 12: app("c")}), Clock()
    roster = Roster(grid, {"run": "r"}, clock=clock)
    roster.poll()
    roster.begin()
    clients = Clients.from_columns(
        data_weight=[1, 1, 1], step_seconds=[0.1] * 3, spectral_efficiency=[1.0] * 3
    )
    engine = FlowerEngine(
        grid, roster, Wire("r", "adaptive", exchange()),
        Network(clients, System(bandwidth_hz=1e6, lora_rank=4)), 0, lambda tasks: 5.0,
        clock=clock, sleep=clock.sleep,
    )  # fmt: skip
    return SimpleNamespace(grid=grid, clock=clock, roster=roster, engine=engine)


def tasks(round_index=0):
    return [ClientTask(n, round_index, random_adapter(1), 2, 7) for n in range(3)]


def changed(reply, **head):
    reply.content["head"].update(head)
    return reply


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ({"run": "another"}, "run 'another'"),
        ({"round": 3}, "round 3"),
        ({"client": 0}, "client 0"),
        ({"train_loss": "low"}, "loss 'low'"),
    ],
)
def test_an_answer_to_something_else_is_refused_with_its_reason(world, head, reason):
    world.grid.faults[11] = lambda reply: changed(reply, **head)
    outcome = world.engine.run_round(0, tasks())
    assert [u.client for u in outcome.updates] == [0, 2]
    [(client, said)] = outcome.unreadable
    assert client == 1
    assert reason in said


def test_an_answer_of_another_size_is_refused(world):
    def cut(reply):
        reply.content["body"]["bytes"] = reply.content["body"]["bytes"][:-4]
        return reply

    world.grid.faults[11] = cut
    outcome = world.engine.run_round(0, tasks())
    assert [client for client, _ in outcome.unreadable] == [1]


def test_what_cannot_be_read_was_sent_and_is_charged(world):
    world.engine.traffic = Traffic(poll_up=0, poll_down=0, empty_up=0, empty_down=0)
    world.grid.faults[11] = lambda reply: changed(reply, run="another")
    outcome = world.engine.run_round(0, tasks())
    [one, two] = outcome.deliveries
    assert outcome.other_upload_bytes == one.upload_bytes == two.upload_bytes
    assert outcome.other_download_bytes == one.download_bytes == two.download_bytes
    assert one.upload_bytes == upload_bytes(exchange(), 2) + Traffic().message_up


def test_who_waits_asks_for_work_and_that_is_charged(world):
    """A task is answered at once, so all are idle all the time, but b is late and busy."""
    world.engine.traffic = Traffic(poll_seconds=0.5)
    world.grid.faults[11] = lambda reply: None
    world.clock.now += 10.0
    outcome = world.engine.run_round(0, tasks())
    idle = 3 * world.clock.now - outcome.round_seconds
    polls, empty, about = 2 + idle / 0.5, 3 * ECHOES, Traffic()
    assert outcome.other_upload_bytes == round(polls * about.poll_up) + empty * about.empty_up
    assert outcome.other_download_bytes == round(polls * about.poll_down) + empty * about.empty_down


def test_a_client_is_told_the_rate_of_its_share_of_the_band(world):
    outcome = world.engine.run_round(0, tasks())
    for message, delivery in zip(world.grid.sent[-3:], outcome.deliveries, strict=True):
        # At an efficiency of 1 bit/s/Hz the rate is the bandwidth.
        assert assigned_bps(message.content) == pytest.approx(delivery.bandwidth_hz)


def test_a_client_that_fails_is_one_that_did_not_answer(world):
    world.grid.faults[11] = lambda reply: Message(Error(8, "stopped"), reply_to=world.grid.sent[-2])
    outcome = world.engine.run_round(0, tasks())
    assert [u.client for u in outcome.updates] == [0, 2]
    assert list(outcome.unreadable) == []
    assert world.clock.now < 5.0  # and the round does not wait for it


def test_a_late_client_costs_the_deadline_and_no_more(world):
    world.grid.faults[11] = lambda reply: None
    outcome = world.engine.run_round(0, tasks())
    assert [u.client for u in outcome.updates] == [0, 2]
    assert outcome.round_seconds == pytest.approx(5.0, abs=0.1)


def test_what_arrives_late_is_not_taken_for_the_next_round(world):
    kept = []
    world.grid.faults[11] = lambda reply: kept.append(reply)
    world.engine.run_round(0, tasks())
    world.grid.faults[11] = lambda reply: kept[0]
    outcome = world.engine.run_round(1, tasks(1))
    assert [u.client for u in outcome.updates] == [0, 2]


def test_with_nobody_there_a_round_waits_for_someone(world):
    gone = dict(world.grid.apps)
    world.grid.apps.clear()
    comes = iter([False] * 3 + [True] * 100)
    world.grid.get_node_ids = lambda: sorted(gone) if next(comes) else []
    world.grid.apps.update(gone)
    outcome = world.engine.run_round(0, tasks())
    assert len(outcome.updates) == 3
    assert 0.5 <= outcome.round_seconds < 5.0


def test_a_client_that_starts_anew_is_found_on_its_new_node(world):
    world.grid.apps[99] = world.grid.apps.pop(11)
    world.roster.poll()
    assert world.roster.node_of(1) == 99
    assert len(world.engine.run_round(0, tasks()).updates) == 3


@pytest.mark.parametrize("leaves", [True, False])
def test_a_client_that_leaves_with_half_its_answer_sent_is_not_waited_for(world, leaves):
    """Flower says nothing more of a reply that was announced; that its node is gone it does."""
    true = world.grid._answer

    def half(message):
        if message.metadata.message_type == "train" and message.metadata.dst_node_id == 11:
            if leaves and world.clock.now > 1:
                world.grid.apps.pop(11, None)
            return None
        return true(message)

    world.grid._answer = half
    outcome = world.engine.run_round(0, tasks())
    assert [u.client for u in outcome.updates] == [0, 2]
    assert (outcome.round_seconds < 3) == leaves  # the deadline is at 5


def test_a_node_is_asked_once_and_again_only_after_a_while():
    grid, clock, heard = FakeGrid({5: app("a")}), Clock(), []
    grid.apps[5] = lambda message, context: heard.append(message)  # answers nothing
    grid.pull_messages = lambda names: []
    roster = Roster(grid, {}, clock=clock)
    for _ in range(3):
        roster.poll()
    assert len(grid.sent) == 1
    clock.now += ASK_AGAIN_SECONDS
    roster.poll()
    assert len(grid.sent) == 2


def test_two_clients_of_one_name_are_not_mixed_up():
    grid = FakeGrid({1: app("twin"), 2: app("twin")})
    roster = Roster(grid, {})
    roster.poll()
    assert [m.node for m in roster.present()] == [1]
    assert roster.refused == [("twin", "a client of that name is there already")]


@pytest.mark.parametrize("examples", [0, -3, "many", None])
def test_a_client_that_does_not_count_its_examples_is_no_member(examples):
    roster = Roster(FakeGrid({1: app("a", examples=examples)}), {})
    roster.poll()
    assert roster.members == {}
    assert "examples" in roster.refused[0][1]


@pytest.mark.parametrize("sketch", [SCALED, LEADING, RESIDUAL])
def test_a_task_arrives_as_it_was_sent_as_far_as_its_client_uses_it(sketch):
    wire = Wire("r", "adaptive", exchange(sketch))
    sent = ClientTask(2, 4, random_adapter(3), 2, 7)
    content = task_content(sent, wire, encode_task(wire.exchange, sent), 1e6)
    read, read_wire = read_task(content, wire.exchange)
    assert (read_wire.run, read_wire.method) == ("r", "adaptive")
    assert (read.client, read.round_index, read.sketch_rank, read.seed) == (2, 4, 2, 7)
    chosen = wire.exchange.components(sent)
    for t in LAYOUT.tensors:
        whole = sent.adapter[t.name]
        if sketch == RESIDUAL or t.rank_axis is None:
            np.testing.assert_array_equal(read.adapter[t.name], whole)
            continue
        expected = np.zeros_like(whole)
        index = (chosen,) if t.rank_axis == 0 else (slice(None), chosen)
        expected[index] = whole[index]
        np.testing.assert_array_equal(read.adapter[t.name], expected)


def test_a_message_without_its_parts_is_named():
    from flwr.app import ConfigRecord, RecordDict

    with pytest.raises(RunError, match="not 'head' and 'body'"):
        read_task(RecordDict({"other": ConfigRecord({"a": 1})}), exchange())
    wire = Wire("r", "adaptive", exchange())
    with pytest.raises(RunError, match="client 9"):
        content = task_content(tasks()[0], wire, b"", 1.0)
        content["head"]["client"] = 9
        read_update(content, tasks()[0], wire)


def test_the_fake_grid_passes_bytes():
    FakeGrid({})  # messages know who makes them
    message = Message(task_content(tasks()[0], Wire("r", "adaptive", exchange()), b"", 1.0),
                      dst_node_id=1, message_type="train")  # fmt: skip
    copy = over_the_wire(message)
    assert copy.content is not message.content
    assert copy.content["head"] == message.content["head"]
