"""Rounds that overlap over Flower's messages, on a grid and a clock that are told."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Error, Message

from engines.fake_grid import TimedGrid
from engines.test_flower import Clock
from federation.test_asynchronous import run as run_buffered
from federation.test_beats import beats, federation, network, overlapping
from federation.toy import LAYOUT, blank, exchange, make_plan, random_adapter, towards
from fedpace.engines.flower.asked import Asked
from fedpace.engines.flower.client import ClientWork, make_client_app
from fedpace.engines.flower.messages import Wire
from fedpace.engines.flower.overlapping import OverlappingFlower
from fedpace.engines.flower.roster import Roster
from fedpace.engines.flower.traffic import Traffic
from fedpace.engines.overlapping import OverlappingSimulation
from fedpace.federation.beats import run_beat
from fedpace.federation.buffered import run_buffer
from fedpace.federation.checks import Checks
from fedpace.federation.methods.fedbuff import fedbuff
from fedpace.federation.rounds import ServerState
from fedpace.federation.server_optimizer import server_adam
from fedpace.federation.underway import OverlappingEngine

pytestmark = pytest.mark.flower
TRAIN = towards(random_adapter(3), 0.2)


def fleet(seconds, *, deadline=1e3, upload_dtype="float32", net=None, asked=None, grid=None):
    """An engine whose clients take so many seconds for a task, and messages none."""
    clock = Clock() if grid is None else grid.clock
    work = ClientWork(lambda method: exchange(upload_dtype=upload_dtype),
                      lambda sketch, trained: TRAIN)  # fmt: skip

    def client(n):
        return make_client_app(
            lambda offer, context: {"name": f"client-{n}", "examples": 1}, lambda context: work
        )

    nodes = range(len(seconds))
    grid = grid or TimedGrid(
        {n: client(n) for n in nodes}, clock, Traffic(), {n: lambda: 0.0 for n in nodes},
        dict.fromkeys(nodes, 1e15), dict.fromkeys(nodes, 1e15), dict(enumerate(seconds)),
    )  # fmt: skip
    roster = Roster(grid, {"run": "r"}, clock=clock)
    roster.poll()
    clock.now += 1e-3
    roster.poll()
    roster.begin()
    engine = OverlappingFlower(
        grid, roster, Wire("r", "test", exchange(upload_dtype=upload_dtype)),
        net or network(seconds, efficiency=1e9), 0, lambda tasks: deadline,
        poll_seconds=0.01, clock=clock, sleep=clock.sleep, asked=asked or Asked(),
    )  # fmt: skip
    assert isinstance(engine, OverlappingEngine)
    return SimpleNamespace(grid=grid, clock=clock, engine=engine, roster=roster)


def counted(records):
    return [sorted((p.client, p.started_round, p.weight) for p in r.participants) for r in records]


def same(one, two):
    for name, value in one.adapter.items():
        np.testing.assert_array_equal(value, two.adapter[name])


def test_the_adapter_is_that_of_the_virtual_clock_to_the_bit():
    """Where both clocks show the same, with updates of up to four beats ago, rounded at random."""
    seconds, plan = [0.33, 0.17, 2.21, 3.71], overlapping([0.9, 0.3, 0.8, 1.0], [2, 4, 1, 3], 1.0)
    net = network(seconds, efficiency=1e9)
    fed = federation(net, server_optimizer=server_adam(0.02))
    there = fleet(seconds, upload_dtype="int8", net=net)
    ours, state = beats(there.engine, fed, plan, 16)
    here = OverlappingSimulation(TRAIN, net, exchange(upload_dtype="int8"), seed=0)
    theirs, expected = beats(here, fed, plan, 16)
    same(state, expected)
    assert counted(ours) == counted(theirs)
    assert max(r.round - p.started_round for r in ours for p in r.participants) == 3
    assert [r.underway for r in ours] == [r.underway for r in theirs]
    np.testing.assert_allclose([r.clock_seconds for r in ours], np.arange(1.0, 17.0), atol=0.1)


def test_an_asynchronous_method_ends_where_it_does_on_the_virtual_clock():
    seconds, plan = [0.11, 0.73, 0.29, 1.93, 0.47], make_plan([0.4] * 5, [4] * 5)
    net = network(seconds, efficiency=1e9)
    expected = run_buffered(fedbuff(LAYOUT, 3), net, plan, 12, random_adapter(3))
    made = fleet(seconds, net=net)
    fed = federation(net, aggregation=fedbuff(LAYOUT, 3))
    records, state = beats(made.engine, fed, plan, 12, run_buffer)
    assert counted(records) == counted(expected[0])
    assert max(r.round - p.started_round for r in records for p in r.participants) >= 1


def silent(world, node):
    """From now on nothing that this client is to train is ever ready."""
    true = world.grid._answer

    def answer(message):
        about = message.metadata
        return None if (about.dst_node_id, about.message_type) == (node, "train") else true(message)

    world.grid._answer = answer


def test_who_vanished_is_a_failure_after_the_deadline_and_holds_up_nobody():
    """Sent at 0 and due at 2.5: nobody waits, and from beat 3 on it is missing whenever asked."""
    world = fleet([0.2, 0.3], deadline=2.5)
    silent(world, 1)
    fed = federation(network([0.2, 0.3]))
    records, state = beats(world.engine, fed, overlapping([1, 1], [4, 4], 1.0), 5)
    assert [[p.client for p in r.participants] for r in records] == [[0]] * 5
    assert [r.missing for r in records] == [(), (), (1,), (1,), (1,)]
    assert [r.underway for r in records] == [1, 1, 0, 0, 0]
    np.testing.assert_allclose([r.round_seconds for r in records], 1.0, atol=0.05)
    assert state.in_vain == {1: 2}, "busy for three beats, of which the first is an idle one's"


def test_a_node_that_is_gone_is_a_failure_at_once():
    world = fleet([0.2, 9.0])
    fed, plan = federation(network([0.2, 9.0])), overlapping([1, 1], [4, 4], 1.5)
    state = ServerState(0, blank(), fed.server_optimizer.init(blank()), plan)
    first, state = run_beat(world.engine, fed, state)
    assert (first.missing, first.underway) == ((), 1)
    del world.grid.apps[1]
    second, state = run_beat(world.engine, fed, state)
    assert (second.missing, second.underway) == ((1,), 0)
    assert [p.client for p in second.participants] == [0]


def test_a_client_that_fails_is_named_and_may_be_asked_again():
    world = fleet([0.2, 0.3])

    def fails(message, context):
        return Message(Error(8, "stopped"), reply_to=message)

    true = world.grid.apps[1]
    world.grid.apps[1] = lambda message, context: (
        fails if message.metadata.message_type == "train" else true
    )(message, context)
    fed = federation(network([0.2, 0.3]))
    records, _ = beats(world.engine, fed, overlapping([1, 1], [4, 4], 1.0), 2)
    assert [r.failed for r in records] == [((1, "stopped"),)] * 2
    assert [r.missing for r in records] == [(1,)] * 2


def test_what_was_on_its_way_when_the_server_ended_is_lost_and_said_to_be_missing():
    net, plan = network([0.2, 2.5], efficiency=1e9), overlapping([1, 1], [4, 4], 1.0)
    first, fed = fleet([0.2, 2.5], net=net), federation(net)
    _, state = beats(first.engine, fed, plan, 1)
    assert [u.client for u in state.underway] == [1]
    again = fleet([0.2, 2.5], net=net)
    record, state = run_beat(again.engine, fed, state)
    assert record.missing == (1,) and [p.client for p in record.participants] == [0]
    assert state.underway == () and state.in_vain == {1: 1}
    for _ in range(3):
        record, state = run_beat(again.engine, fed, state)
    [late] = [p for p in record.participants if p.client == 1]
    # A cycle of one beat of its own, two for which it was late, one that was in vain.
    assert late.started_round == 2 and late.weight == pytest.approx(0.5 * (1 + 2 + 1))
    assert state.in_vain == {}


def test_what_another_method_or_an_abandoned_state_asked_does_not_count_but_is_waited_for():
    world, fed = fleet([0.2, 2.5]), federation(network([0.2, 2.5]))
    plan = overlapping([1, 1], [4, 4], 1.0)
    _, state = beats(world.engine, fed, plan, 1)
    next_one = fleet([0.2, 2.5], grid=world.grid, asked=world.engine.asked)
    records, state = beats(next_one.engine, fed, plan, 3)
    assert [r.missing for r in records] == [(1,), (1,), ()], "it is still at work on the other"
    assert [[p.client for p in r.participants] for r in records] == [[0]] * 3
    assert [a.client for r in records for a in r.late] == [1]
    assert [u.client for u in state.underway] == [1]


def test_updates_are_checked_and_nobody_is_refused_for_being_late():
    seconds = [0.33, 0.17, 2.21]
    world = fleet(seconds)
    fed = federation(network(seconds), checks=Checks())
    records, _ = beats(world.engine, fed, overlapping([1, 1, 1], [4] * 3, 1.0), 8)
    assert not any(r.refusals for r in records)
    assert {p.client for r in records for p in r.participants} == {0, 1, 2}


def test_with_nobody_there_a_beat_waits_for_somebody():
    world, fed = fleet([0.2, 0.3], deadline=20.0), federation(network([0.2, 0.3]))
    apps = dict(world.grid.apps)
    world.grid.apps.clear()
    true = world.clock.sleep

    def sleep(seconds):
        true(seconds)
        if world.clock.now > 7.0:
            world.grid.apps.update(apps)

    world.engine.sleep = sleep
    records, _ = beats(world.engine, fed, overlapping([1, 1], [4, 4], 1.0), 2)
    assert 7.0 <= records[0].round_seconds < 9.0
    assert sum(len(r.participants) for r in records) >= 2
