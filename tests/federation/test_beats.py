"""Overlapping rounds against what is known another way."""

from dataclasses import replace

import numpy as np
import pytest

from federation.toy import LAYOUT, blank, context, exchange, make_plan, random_adapter, towards
from fedpace.core.errors import InputError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.profile import Clients, System
from fedpace.core.sketch import RESIDUAL
from fedpace.engines.exchange import upload_bytes
from fedpace.engines.overlapping import OverlappingSimulation
from fedpace.engines.simulated import SimulatedEngine
from fedpace.federation.beats import run_beat
from fedpace.federation.engine import Delivery, RoundOutcome
from fedpace.federation.methods.fedit import fedit
from fedpace.federation.methods.sketched import sketched
from fedpace.federation.rounds import Federation, ServerState, run_round
from fedpace.federation.server_optimizer import server_adam, server_sgd
from fedpace.wireless.network import Network, charge

BITS = 8.0 * upload_bytes(exchange(), 2)


def network(step_seconds, *, availability=1.0, efficiency=1.0, overhead=0.0, **changes):
    count = len(step_seconds)
    clients = Clients.from_columns(
        data_weight=np.ones(count), step_seconds=step_seconds,
        spectral_efficiency=np.full(count, efficiency),
        availability=np.broadcast_to(availability, count), **changes,
    )  # fmt: skip
    system = System(bandwidth_hz=BITS, lora_rank=4, local_steps=1, fixed_bits=0.0,
                    bits_per_rank=1.0, overhead_seconds=overhead)  # fmt: skip
    return Network(clients, system)


def federation(net, **changes):
    return Federation(**{
        "method": "test", "layout": LAYOUT, "data_weight": np.array(net.clients.data_weight),
        "availability": np.array(net.clients.availability),
        "aggregation": sketched(context(RESIDUAL)), "server_optimizer": server_sgd(1.0), "seed": 0,
        **changes,
    })  # fmt: skip


def overlapping(q, k, beat):
    made = make_plan(q, k)
    return replace(made, decision=replace(made.decision, beat_seconds=beat))


def beats(engine, fed, plan, count, step=run_beat):
    state = ServerState(0, blank(), fed.server_optimizer.init(blank()), plan)
    records = []
    for _ in range(count):
        record, state = step(engine, fed, state)
        records.append(record)
    return records, state


def test_where_nobody_is_late_a_beat_is_a_synchronous_round_to_the_bit():
    net = network([0.3, 0.1, 0.2, 0.5], availability=0.8)
    q, k = [0.9, 0.3, 0.6, 1.0], [2, 4, 1, 3]
    train = towards(random_adapter(3), 0.2)
    fed = federation(net, server_optimizer=server_adam(0.02))
    waited = beats(SimulatedEngine(train, net, exchange(upload_dtype="int8"), seed=0),
                   fed, make_plan(q, k), 12, run_round)  # fmt: skip
    late = beats(OverlappingSimulation(train, net, exchange(upload_dtype="int8"), seed=0),
                 fed, overlapping(q, k, 1e3), 12)  # fmt: skip
    for name, value in waited[1].adapter.items():
        np.testing.assert_array_equal(value, late[1].adapter[name])
    for one, two in zip(waited[0], late[0], strict=True):
        assert [(p.client, p.weight, p.upload_bytes) for p in one.participants] == sorted(
            (p.client, p.weight, p.upload_bytes) for p in two.participants
        )
        assert one.lora_squared_norm == two.lora_squared_norm
        assert one.missing == two.missing
    assert late[0][-1].clock_seconds == 12e3


def test_an_upload_keeps_its_gain_however_many_beats_it_takes():
    """Alone on the band, each upload is what a round that waits would have taken."""
    net = network([0.3], efficiency=3.0)
    net = replace(net, system=replace(net.system, fading=True))
    train, fed, seed = towards(random_adapter(1), 0.1), federation(net), 0
    engine = OverlappingSimulation(train, net, exchange(), seed=seed)
    records, _ = beats(engine, fed, overlapping([1.0], [2], 0.1), 600)
    seen = [p for r in records for p in r.participants]
    assert len(seen) > 10
    for p in seen:
        _, share = charge(net, seed, p.started_round, np.array([0]), np.array([2]),
                          np.array([8.0 * p.upload_bytes]), np.zeros(1), now=0.0)  # fmt: skip
        assert p.start_seconds + p.upload_seconds == pytest.approx(share.round_seconds)
    assert np.ptp([p.upload_seconds for p in seen]) > 0.3


def test_staleness_counted_by_hand():
    """D = 1; an upload takes 1/4 s; 0 trains for 1/2 s, 1 for 3/2 s, 2 for 5/8 s.

    0 is ready at 1/2 and sends till 3/4; 2 is ready at 5/8 and sends from 3/4 to 1: both count in
    beat 0 and start again. At 3/2 both 0 and 1 are ready: 0 sends till 7/4, 1 till 2, and 2, ready
    at 13/8, from 2 to 9/4: it is late by one, and starts again at beat 3.
    """
    net = network([0.5, 1.5, 0.625], efficiency=4.0)
    engine = OverlappingSimulation(towards(random_adapter(0)), net, exchange(), seed=0)
    records, state = beats(engine, federation(net), overlapping([1, 1, 1], [2, 2, 2], 1.0), 4)
    counted = [[(p.client, p.started_round) for p in r.participants] for r in records]
    assert counted == [[(0, 0), (2, 0)], [(0, 1), (1, 0)], [(2, 1), (0, 2)], [(0, 3), (1, 2)]]
    weights = [p.weight for p in records[1].participants] + [records[2].participants[0].weight]
    np.testing.assert_allclose(weights, [1 / 3, 2 / 3, 2 / 3])
    assert [u.client for u in state.underway] == [2]
    waited = records[0].participants[1]
    assert (waited.start_seconds, waited.upload_seconds) == (0.625, 0.375)


def test_what_the_server_takes_before_a_start_is_not_charged_to_the_client():
    net = network([0.5], efficiency=4.0, overhead=0.25)
    engine = OverlappingSimulation(towards(random_adapter(0)), net, exchange(), seed=0)
    records, _ = beats(engine, federation(net), overlapping([1], [2], 1.0), 2)
    assert [p.start_seconds for r in records for p in r.participants] == [0.5, 0.5]


@pytest.mark.parametrize("step", [run_beat, run_round])
def test_a_plan_may_give_clients_other_shares_than_their_data_has(step):
    """Everyone is there, so that the server moves along the mean with these shares, exactly."""
    net, share = network([0.1, 0.1, 0.1]), np.array([0.7, 0.1, 0.2])
    goals = [random_adapter(n) for n in range(3)]

    def each_to_its_own(tasks):
        return [towards(goals[t.client], 1.0)([t])[0] for t in tasks]

    plan = overlapping([1, 1, 1], [4, 4, 4], 5.0)
    plan = replace(plan, decision=replace(
        plan.decision, aggregation_weight=share, beat_seconds=5.0 if step is run_beat else None
    ))  # fmt: skip
    engine = OverlappingSimulation(each_to_its_own, net, exchange(), seed=0)
    records, state = beats(engine, federation(net), plan, 4, step)
    assert [p.weight for p in records[-1].participants] == pytest.approx(share)
    for name, value in state.adapter.items():
        limit = sum(a * goal[name] for a, goal in zip(share, goals, strict=True))
        np.testing.assert_allclose(value, limit, atol=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(None, marks=pytest.mark.slow),
        pytest.param(np.array([0.3, 0.1, 0.05, 0.25, 0.2, 0.1]), marks=pytest.mark.long),
    ],
)
def test_the_mean_weight_of_every_client_is_its_share(given):
    """With clients that are always busy, that wait for the band, that fail, and that are rare.

    Its share of the data, or of the mean, where the plan says so.
    """
    count, rounds = 6, 40_000
    net = network([0.3, 0.4, 2.2, 3.7, 0.1, 1.4], efficiency=3.0,
                  availability=[1.0, 0.7, 1.0, 0.5, 0.9, 1.0])  # fmt: skip
    plan = overlapping([0.3, 0.5, 1.0, 1.0, 0.05, 0.4], [2] * count, 0.5)
    plan = replace(plan, decision=replace(plan.decision, aggregation_weight=given))
    data = np.array([0.1, 0.3, 0.2, 0.15, 0.05, 0.2])
    share = data if given is None else given
    engine = Untrained(net)
    fed = federation(net, data_weight=data)
    blocks, block, late = [], np.zeros(count), np.zeros(count)
    state = ServerState(0, blank(), {}, plan)
    for index in range(rounds):
        record, state = run_beat(engine, fed, state)
        for p in record.participants:
            block[p.client] += p.weight
            late[p.client] = max(late[p.client], index - p.started_round)
        if index % 1000 == 999:
            blocks.append(block / 1000)
            block = np.zeros(count)
    error = np.std(blocks, axis=0) / np.sqrt(len(blocks))
    mean = np.mean(blocks, axis=0)
    assert np.all(late[2:4] >= 4), "the slow ones are late"
    assert np.all(np.abs(mean - share) <= 4 * error + 1e-6), (mean - share) / error
    assert np.all(error <= 0.03 * share)


class Untrained(OverlappingSimulation):
    """Nobody trains and every message says the same, so that many beats take seconds."""

    def __init__(self, net):
        super().__init__(lambda tasks: [], net, exchange(), seed=0)
        (self._same,) = towards(random_adapter(0))([ClientTask(0, 0, blank(), 2, 0)])

    def train(self, tasks, underway):
        return list(underway)

    def read(self, ended):
        updates = [replace(self._same, client=u.client, round_index=u.started_round)
                   for u in ended if u.arrived]  # fmt: skip
        return RoundOutcome(updates, [Delivery(0, 0, 0.0, 0.0, 0.0)] * len(updates), 0.0)


class Failing(Untrained):
    """Half of what a client is asked comes to nothing; the server learns it three beats later."""

    def advance(self, round_index, underway, *, until, arrivals=None):
        fails = [u for u in underway
                 if np.random.default_rng((u.client, u.started_round)).random() < 0.5]  # fmt: skip
        sound = [u for u in underway if u not in fails]
        ended, left = super().advance(round_index, sound, until=until)
        over = [u for u in fails if round_index - u.started_round == 3]
        return [*over, *ended], [*left, *(u for u in fails if u not in over)]


@pytest.mark.slow
def test_what_failed_late_has_its_share_in_the_weight_of_the_next_update():
    net, rounds = network([0.1, 1.2, 0.3], efficiency=10.0), 8_000
    fed = federation(net, availability=np.full(3, 0.5))
    state, weights = ServerState(0, blank(), {}, overlapping([0.4, 1.0, 0.9], [2] * 3, 0.5)), []
    engine = Failing(net)
    for _ in range(rounds):
        record, state = run_beat(engine, fed, state)
        assert not {p.client for p in record.participants} & set(record.missing)
        weights.append(np.bincount([p.client for p in record.participants],
                                   [p.weight for p in record.participants], 3))  # fmt: skip
    blocks = np.mean(np.reshape(weights, (100, -1, 3)), axis=1)
    error = np.std(blocks, axis=0) / 10
    assert np.all(np.abs(blocks.mean(axis=0) - 1 / 3) <= 4 * error)
    assert np.all(error <= 0.015)


def test_a_method_that_needs_a_barrier_says_so():
    net = network([0.1, 0.1])
    engine = OverlappingSimulation(towards(random_adapter(0)), net, exchange(), seed=0)
    barrier = federation(net, aggregation=fedit(context()))
    with pytest.raises(InputError, match="'test' aggregates .* schedule = 'synchronous'"):
        beats(engine, barrier, overlapping([1, 1], [2, 2], 1.0), 1)
    with pytest.raises(InputError, match="draws its cohort"):
        beats(engine, federation(net), make_plan([0.5, 0.5], [2, 2], draws=2), 1)


@pytest.mark.slow
def test_least_squares_converges_to_its_solution_and_naive_weights_do_not():
    """F_n = |x - c_n|^2 / 2, solution sum a_n c_n; slow clients have other c_n than fast ones."""
    share = np.array([0.2, 0.2, 0.3, 0.3])
    centre = np.array([0.0, 0.0, 1.0, 1.0])
    net = network([0.1, 0.2, 2.3, 3.4], efficiency=10.0)
    plan = overlapping([0.5, 0.8, 1.0, 1.0], [4] * 4, 0.5)

    def train(tasks):
        return [
            ClientUpdate(t.client, t.round_index, np.arange(4),
                         {n: np.float32(0.02) * (np.float32(centre[t.client]) - x)
                          for n, x in t.adapter.items()}, 0.0)
            for t in tasks
        ]  # fmt: skip

    ends = {}
    for name, step in (("ours", run_beat), ("naive", naive_beat)):
        engine = OverlappingSimulation(train, net, exchange(), seed=0)
        fed = federation(net, data_weight=share)
        state, seen = ServerState(0, blank(), {}, plan), []
        for _ in range(1500):
            _, state = step(engine, fed, state)
            seen.append(float(state.adapter["head"][0, 0]))
        ends[name] = np.mean(seen[500:])
    solution = float(share @ centre)
    assert ends["ours"] == pytest.approx(solution, abs=0.01)
    assert abs(ends["naive"] - solution) > 0.2


def naive_beat(engine, fed, state):
    """1/q_n, which knows nothing of how long a client is busy."""

    def sum_up(adapter, memory, back):
        weights = [fed.data_weight[u.client] / state.plan.sampling_probability[u.client]
                   for u in back.updates]  # fmt: skip
        return fed.aggregation.aggregate(adapter, memory, replace(back, unbiased_weight=weights))

    naive = replace(fed.aggregation, aggregate=sum_up)
    return run_beat(engine, replace(fed, aggregation=naive), state)
