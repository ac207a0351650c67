"""What of a round is neither training nor transfer, on a grid whose pauses and links are known."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("flwr")

from engines.fake_grid import FakeGrid, TimedGrid
from engines.test_flower import Clock, app
from federation.toy import exchange, random_adapter
from fedpace.core.messages import ClientTask
from fedpace.core.plan import Decision, Plan
from fedpace.core.profile import Clients, System
from fedpace.core.record import ParticipantRecord, RoundRecord
from fedpace.engines.flower.echoes import Echoes
from fedpace.engines.flower.engine import ECHO_PATIENCE_SECONDS, ECHOES, FlowerEngine
from fedpace.engines.flower.messages import Wire
from fedpace.engines.flower.roster import Roster
from fedpace.engines.flower.traffic import Traffic
from fedpace.planning.renewal import renew_every
from fedpace.planning.renewal_state import RenewalState, informed, overhead_seconds
from fedpace.wireless.network import Network

pytestmark = pytest.mark.flower
N, LOOK = 3, 0.001
PAUSE = np.array([0.3, 0.5, 0.4])
UP = np.array([2e3, 1e3, 4e3])  # byte/s
DOWN = np.array([8e3, 1e4, 2e3])
WORK = np.array([1.0, 2.0, 0.5])
BETWEEN = 0.25
TRAFFIC = Traffic(message_up=300, message_down=100)
"""Of the size of the toy adapter's messages."""


def fleet(scatter=0.0, grid=TimedGrid):
    """An engine on a timed grid; pauses scatter by that much to both sides."""
    rng = np.random.default_rng(0)
    clock, nodes = Clock(), [10, 11, 12]

    def pause(n):
        return lambda: PAUSE[n] + rng.uniform(-scatter, scatter)

    grid = grid(
        {node: app(f"client-{n}") for n, node in enumerate(nodes)}, clock, TRAFFIC,
        {node: pause(n) for n, node in enumerate(nodes)},
        *(dict(zip(nodes, values, strict=True)) for values in (UP, DOWN, WORK)),
    )  # fmt: skip
    roster = Roster(grid, {"run": "r"}, clock=clock)
    roster.poll()
    clock.now += 1.0
    roster.poll()
    roster.begin()
    clients = Clients.from_columns(
        data_weight=np.ones(N), step_seconds=np.full(N, 0.1), spectral_efficiency=np.full(N, 1.0)
    )
    system = System(bandwidth_hz=3e5, lora_rank=4, local_steps=10, overhead_seconds=7.0)
    engine = FlowerEngine(
        grid, roster, Wire("r", "adaptive", exchange()), Network(clients, system), 0,
        lambda tasks: 60.0, traffic=TRAFFIC, poll_seconds=LOOK, clock=clock, sleep=clock.sleep,
    )  # fmt: skip
    return SimpleNamespace(grid=grid, clock=clock, engine=engine, clients=clients, system=system)


def play(world, index, clients=range(N)):
    tasks = [ClientTask(n, index, random_adapter(1), 4, 7) for n in clients]
    outcome = world.engine.run_round(index, tasks)
    world.clock.now += BETWEEN
    return outcome


def test_training_transfer_and_the_rest_are_told_apart():
    world = fleet()
    play(world, 0)
    outcome = play(world, 1)
    for n, delivery in enumerate(outcome.deliveries):
        up, down = delivery.upload_bytes, delivery.download_bytes
        assert delivery.upload_seconds == pytest.approx(up / UP[n], abs=3 * LOOK)
        assert delivery.start_seconds == pytest.approx(down / DOWN[n] + WORK[n], abs=3 * LOOK)
    assert outcome.overhead_seconds == pytest.approx(PAUSE.mean() + BETWEEN, abs=3 * LOOK)


def test_where_nobody_sees_an_answer_come_the_two_ways_share_by_bytes():
    world = fleet(grid=type("Blind", (TimedGrid,), {"upload": None}))
    play(world, 0)
    [first, *_] = play(world, 1).deliveries
    up, down = first.upload_bytes, first.download_bytes
    moved = up / UP[0] + down / DOWN[0]
    assert first.upload_seconds == pytest.approx(moved * up / (up + down), rel=0.1)


def test_every_client_is_heard_before_its_first_round_and_one_who_waits_in_each_later_one():
    world = fleet()
    play(world, 0)
    counts = lambda: world.engine.echoes.seen.observations.tolist()  # noqa: E731
    assert counts() == [ECHOES] * N
    for index in range(1, 5):
        play(world, index, [1])  # the longest; the others wait in turn
    assert counts() == [ECHOES + 2, ECHOES, ECHOES + 2]
    assert world.engine.echoes.pending == {}


def test_a_client_that_does_not_answer_an_empty_message_costs_its_patience_once():
    world = fleet()
    answer = world.grid._answer
    world.grid._answer = lambda m: (
        None if "echo" in m.content and m.metadata.dst_node_id == 12 else answer(m)
    )
    before = world.clock.now
    assert len(play(world, 0).updates) == N
    assert world.clock.now - before > ECHO_PATIENCE_SECONDS
    before = world.clock.now
    assert len(play(world, 1).updates) == N
    assert world.clock.now - before < ECHO_PATIENCE_SECONDS
    assert world.engine.echoes.pending == {}
    one, two, silent = world.engine.echoes.seconds(N)
    assert min(one, two) <= silent <= max(one, two)  # it is taken to be as the others


def record(outcome, index):
    people = tuple(
        ParticipantRecord(
            u.client, len(u.components), 1.0, d.download_bytes, d.upload_bytes, d.start_seconds,
            d.upload_seconds, d.bandwidth_hz, u.train_loss, 1.0, 1.0,
        )
        for u, d in zip(outcome.updates, outcome.deliveries, strict=True)
    )  # fmt: skip
    return RoundRecord(
        "m", index, 0.0, outcome.round_seconds, people, 0, 0, 0.0, 1.0, 1.0,
        overhead_seconds=outcome.overhead_seconds,
    )  # fmt: skip


@pytest.mark.slow
def test_the_plan_is_renewed_with_the_overhead_and_the_links_that_there_are():
    """Pauses scatter as those of polling do; links and devices are far from their profile."""
    world = fleet(scatter=0.1)
    renewal = renew_every(
        lambda clients, system, start, predict: start, world.clients, world.system, every=10**6,
        objective=lambda *_: 1.0,
    )  # fmt: skip
    assert overhead_seconds(renewal.state, world.system) == 7.0
    plan = Plan("test", world.clients.client_id, Decision(np.ones(N), np.full(N, 4)))
    bands = [[], [], []]
    for index in range(90):
        outcome = play(world, index, [n for n in range(N) if n != index % N])
        for update, delivery in zip(outcome.updates, outcome.deliveries, strict=True):
            bands[update.client].append(delivery.bandwidth_hz)
        _, renewal = renewal.after(record(outcome, index), plan)
    state = RenewalState.from_json(renewal.state.to_json())
    seen, system = informed(state, world.clients, world.system, renewal.noise_scale(), plan)
    expected = PAUSE.mean() + BETWEEN
    assert system.overhead_seconds == pytest.approx(expected, abs=0.05)
    rate_bps = seen.spectral_efficiency * np.mean(bands, axis=1)
    np.testing.assert_allclose(rate_bps, 8 * UP, rtol=0.1)


def test_an_answer_that_comes_late_is_timed_and_its_client_is_asked_nothing_meanwhile():
    world = fleet()
    play(world, 0)
    world.engine.deadline = lambda tasks: 12.0
    world.grid.up = {**world.grid.up, 11: 30.0}  # byte/s: more than a minute
    outcome = play(world, 1)
    assert [u.client for u in outcome.updates] == [0, 2] and not outcome.late
    assert outcome.round_seconds == pytest.approx(12.0, abs=0.1)
    late, rounds = [], 1
    while not late and rounds < 200:
        rounds += 1
        outcome = play(world, rounds)
        assert [u.client for u in outcome.updates] == [0, 2]
        assert outcome.round_seconds < 11.0  # nobody waits for it
        late += outcome.late
    [answer] = late
    assert (answer.client, answer.round) == (1, 1)
    assert answer.upload_seconds == pytest.approx(answer.upload_bytes / 30.0, rel=0.05)
    world.grid.up[11] = 1e3
    assert [u.client for u in play(world, rounds + 1).updates] == [0, 1, 2]


def test_echoes_of_a_fleet_that_grows_are_kept():
    grid = FakeGrid({5: app("a"), 6: app("b")})
    echoes = Echoes()
    np.testing.assert_array_equal(echoes.seconds(2), [0.0, 0.0])
    for client, node, took in ((0, 5, 0.2), (1, 6, 0.4)):
        echoes.send(grid, [(client, node)], 0.0)
        [reply] = grid.pull_messages(list(echoes.pending))
        assert echoes.heard(reply, took)
        assert not echoes.heard(reply, took)
    np.testing.assert_allclose(echoes.seconds(3), 0.3)  # while nobody was heard twice
    assert echoes.asked == {0, 1}


def test_old_states_have_no_overhead_and_load():
    state = renew_every(
        lambda *a, **k: None, fleet().clients, fleet().system, every=1
    ).state  # fmt: skip
    table = state.to_json()
    del table["overhead"]
    assert overhead_seconds(RenewalState.from_json(table), fleet().system) == 7.0
