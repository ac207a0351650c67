"""What every engine must do, whatever it is made of: the same adapter by the same rounds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from federation.toy import (
    LAYOUT,
    context,
    exchange,
    follower,
    make_plan,
    random_adapter,
    towards,
)
from fedpace.core.profile import Clients, System
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.engines.exchange import Exchange, upload_bytes
from fedpace.engines.simulated import SimulatedEngine
from fedpace.experiment.config import Experiment
from fedpace.experiment.methods import METHODS, hooks_of, method_context, server_of
from fedpace.experiment.parsing import parse
from fedpace.federation.engine import Delivery, RoundOutcome
from fedpace.federation.hooks.clipping import PRIVATE_DTYPES
from fedpace.federation.hooks.hook import hooked
from fedpace.federation.hooks.rounding import UPLOAD_BITS
from fedpace.federation.methods.sketched import sketched
from fedpace.federation.rounds import Federation, ServerState, run_round
from fedpace.federation.server_optimizer import server_sgd
from fedpace.wireless.network import Network

SEED, N = 5, 6
WEIGHT = np.array([1.0, 2, 3, 4, 5, 6]) / 21


def network(sketch):
    clients = Clients.from_columns(
        data_weight=WEIGHT, step_seconds=np.full(N, 1e-4), spectral_efficiency=np.full(N, 2.0)
    )
    system = System(bandwidth_hz=1e9, lora_rank=LAYOUT.rank, sketch=sketch, bits_per_rank=100.0)
    return Network(clients, system)


@dataclass
class Made:
    engine: Any
    lose: Any
    """Have a client of the population answer no more."""
    requests: tuple[int, int] = (0, 0)
    """Bytes about each message that are no part of it, up and down."""


class Clock:
    """Seconds pass when someone sleeps, and a little with every look."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1e-6
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Changing:
    """A network whose clients a test exchanges while the engine holds it."""

    def __init__(self, network):
        self.network = network

    def __getattr__(self, name):
        return getattr(self.network, name)


def simulated(sketch, traffic=None, train=None):
    net = Changing(network(sketch))
    train, traffic = train or towards(random_adapter(9)), traffic or exchange(sketch)

    def lose(client):
        columns = dict(net.clients.columns())
        columns["availability"] = np.where(np.arange(N) == client, 1e-12, 1.0)
        net.network = Network(Clients.from_columns(**columns), net.system)

    return Made(SimulatedEngine(train, net, traffic, seed=SEED), lose)


def flower(sketch, traffic=None, train=None, at_the_client=None):
    """`at_the_client`: what a client makes for itself of what both ends agree on."""
    pytest.importorskip("flwr")
    from engines.fake_grid import FakeGrid
    from fedpace.engines.flower.client import ClientWork, make_client_app
    from fedpace.engines.flower.engine import FlowerEngine
    from fedpace.engines.flower.messages import Wire
    from fedpace.engines.flower.roster import Roster

    train, traffic = train or towards(random_adapter(9)), traffic or exchange(sketch)
    work = ClientWork(
        lambda method: at_the_client or exchange(sketch), lambda sketch, trained: train
    )
    # Node ids in another order than names: positions go by name.
    apps = {
        1000 - n: make_client_app(
            lambda offer, context, n=n: {"name": f"client-{n}", "examples": n + 1},
            lambda context: work,
        )
        for n in range(N)
    }
    grid, clock = FakeGrid(apps), Clock()
    roster = Roster(grid, {"run": "r"}, clock=clock)
    roster.poll()
    roster.begin()
    assert roster.names == tuple(f"client-{n}" for n in range(N))
    engine = FlowerEngine(
        grid, roster, Wire("r", "adaptive", traffic),
        network(sketch), SEED, deadline=lambda tasks: 10.0, clock=clock, sleep=clock.sleep,
    )  # fmt: skip
    return Made(
        engine,
        lambda client: grid.faults.update({1000 - client: lambda reply: None}),
        (engine.traffic.message_up, engine.traffic.message_down),
    )


ENGINES = [pytest.param(simulated, id="simulated"),
           pytest.param(flower, id="flower", marks=pytest.mark.flower)]  # fmt: skip
SKETCHES = [RESIDUAL, SCALED]


def federation(sketch):
    return Federation(
        method="test", layout=LAYOUT, data_weight=WEIGHT, availability=np.ones(N),
        aggregation=sketched(context(sketch)), server_optimizer=server_sgd(0.5), seed=SEED,
    )  # fmt: skip


def play(made, sketch, rounds=4, chance=0.6):
    setting = federation(sketch)
    adapter = random_adapter(1)
    plan = make_plan(np.full(N, chance), [1, 2, 3, 4, 2, 1])
    state = ServerState(0, adapter, setting.server_optimizer.init(adapter), plan)
    records = []
    for _ in range(rounds):
        record, state = run_round(made.engine, setting, state)
        records.append(record)
    return records, state


@pytest.mark.parametrize("sketch", SKETCHES)
@pytest.mark.parametrize("make", ENGINES)
def test_the_adapter_is_that_of_a_plain_loop_over_the_clients(make, sketch):
    """The reference: the formula of the round, written out, with no engine at all."""
    from fedpace.core.messages import ClientTask
    from fedpace.federation.participation import sample_participants

    rank = np.array([1, 2, 3, 4, 2, 1])
    plan = make_plan(np.full(N, 0.6), rank)
    expected = {name: value.astype(np.float64) for name, value in random_adapter(1).items()}
    for index in range(4):
        now = {name: value.astype(np.float32) for name, value in expected.items()}
        for n in sample_participants(plan, index, SEED).client:
            task = ClientTask(int(n), index, now, int(rank[n]), SEED)
            [update] = towards(random_adapter(9))([task])
            for t in LAYOUT.tensors:
                scale = LAYOUT.rank / rank[n] if sketch == RESIDUAL and t.role != "head" else 1
                step = 0.5 * WEIGHT[n] / 0.6 * scale * update.delta[t.name]
                if t.role == "A":
                    expected[t.name][update.components] += step
                elif t.role == "B":
                    expected[t.name][:, update.components] += step
                else:
                    expected[t.name] += step
    _, state = play(make(sketch), sketch)
    for name, value in expected.items():
        np.testing.assert_allclose(state.adapter[name], value, atol=1e-6)


@pytest.mark.parametrize("sketch", SKETCHES)
@pytest.mark.parametrize("make", ENGINES)
def test_bytes_are_those_of_the_messages(make, sketch):
    made = make(sketch)
    records, _ = play(made, sketch)
    people = [p for record in records for p in record.participants]
    assert people
    for p in people:
        assert p.upload_bytes == upload_bytes(exchange(), p.sketch_rank) + made.requests[0]
        down = LAYOUT.rank if sketch == RESIDUAL else p.sketch_rank
        assert p.download_bytes == upload_bytes(exchange(), down) + made.requests[1]


class ByReference:
    """An engine without messages: the server's own arrays, as a formula has them."""

    def __init__(self, train):
        self.train = train

    def now(self):
        return 0.0

    def run_round(self, round_index, tasks):
        updates = self.train(tasks)
        nothing = Delivery(0, 0, 0.0, 0.0, 0.0)
        return RoundOutcome(updates, [nothing] * len(updates), 0.0)


CASES = {
    "residual": ("uniform", RESIDUAL, 0.0),
    "scaled": ("uniform", SCALED, 0.0),
    "residual, server memory": ("uniform", RESIDUAL, 0.6),
    "scaled, server memory": ("uniform", SCALED, 0.6),
    "private": ("uniform", RESIDUAL, 0.0),
    **{
        name: (name, RESIDUAL, 0.0)
        for name, method in METHODS.items()
        if method.published is not None
    },
}


def agreed(case, upload_dtype, share=WEIGHT):
    """What one end makes of an experiment; a client does not know the data weights."""
    method, sketch, memory = CASES[case]
    table = {
        "methods": [method],
        "training": {"server_memory": memory},
        "lora": {"rank": LAYOUT.rank, "sketch": sketch.name, "upload_dtype": upload_dtype},
    }
    if case == "private":  # a norm that cuts
        table["privacy"] = {"clip_norm": 0.1, "noise_multiplier": 0.5, "delta": 1e-4}
    experiment = parse(Experiment, table, "toy")
    initial = {n: v * (0 if n.endswith("B") else 1) for n, v in random_adapter(1).items()}
    about = method_context(experiment, LAYOUT, np.asarray(share))
    aggregation, _ = server_of(experiment, method, about)
    hooks = hooks_of(experiment, method, about, LAYOUT.only(aggregation.trained))
    return Exchange(LAYOUT, initial, aggregation, hooks)


def play_method(engine, traffic, rounds=4):
    method = hooked(traffic.aggregation, traffic.hooks)
    setting = Federation(
        method="test", layout=LAYOUT, data_weight=WEIGHT, availability=np.ones(N),
        aggregation=method, server_optimizer=server_sgd(1.0), seed=SEED,
    )  # fmt: skip
    adapter, memory = method.begin(traffic.initial)
    plan = make_plan(np.full(N, 0.6), [1, 2, 3, 4, 2, 1])
    state = ServerState(0, adapter, setting.server_optimizer.init(adapter), plan, memory)
    records = []
    for _ in range(rounds):
        record, state = run_round(engine, setting, state)
        records.append(record)
    return records, state


WORK = [(case, upload_dtype) for case in CASES for upload_dtype in UPLOAD_BITS
        if case != "private" or upload_dtype in PRIVATE_DTYPES]  # fmt: skip


@pytest.mark.flower
@pytest.mark.parametrize(("case", "upload_dtype"), WORK)
def test_every_method_ends_in_the_same_adapter_whatever_the_engine(case, upload_dtype):
    """Whatever travels and however it is rounded, to the bit; unrounded, also without messages."""
    sketch = CASES[case][1]
    train = follower(agreed(case, upload_dtype).aggregation, random_adapter(9))
    ours, client = agreed(case, upload_dtype), agreed(case, upload_dtype, share=())
    one = simulated(sketch, agreed(case, upload_dtype), train)
    two = flower(sketch, ours, train, client)
    records, state = play_method(one.engine, agreed(case, upload_dtype))
    other_records, other = play_method(two.engine, ours)
    assert sum(len(r.participants) for r in records) > N
    moved = {n: v - agreed(case, upload_dtype).initial.get(n, 0) for n, v in state.adapter.items()}
    assert any(v.any() for v in moved.values())
    _, plain = play_method(ByReference(train), agreed(case, upload_dtype))
    for name, value in state.adapter.items():
        np.testing.assert_array_equal(other.adapter[name], value)
        if upload_dtype == "float32" and case not in ("flasc", "private"):
            np.testing.assert_array_equal(plain.adapter[name], value)
    for name, value in state.memory.items():
        np.testing.assert_array_equal(other.memory[name], value)
    for record, alike in zip(records, other_records, strict=True):
        for p, q in zip(record.participants, alike.participants, strict=True):
            assert p.upload_bytes == q.upload_bytes - two.requests[0]
            assert p.download_bytes == q.download_bytes - two.requests[1]


@pytest.mark.parametrize("make", ENGINES)
def test_a_client_that_does_not_answer_is_left_out_and_the_others_count(make):
    made = make(RESIDUAL)
    made.lose(2)
    records, _ = play(made, RESIDUAL, rounds=1, chance=1.0)
    assert [p.client for p in records[0].participants] == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("make", ENGINES)
def test_the_clock_does_not_run_backwards_and_a_round_is_within_it(make):
    records, _ = play(make(RESIDUAL), RESIDUAL)
    clock = [0.0, *(record.clock_seconds for record in records)]
    assert all(a <= b for a, b in zip(clock, clock[1:], strict=False))
    for before, record in zip(clock, records, strict=False):
        assert record.round_seconds <= record.clock_seconds - before + 1e-9
        for p in record.participants:
            assert p.start_seconds >= 0
            assert p.upload_seconds > 0
            assert p.start_seconds + p.upload_seconds <= record.round_seconds + 1e-9


@pytest.mark.parametrize("make", ENGINES)
def test_a_round_without_tasks_has_no_updates(make):
    outcome = make(RESIDUAL).engine.run_round(0, [])
    assert list(outcome.updates) == []
    assert list(outcome.deliveries) == []
