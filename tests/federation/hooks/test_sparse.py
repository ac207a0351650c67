"""Sparse uploads: a case by hand, what is equal and not finite, bytes on the wire and the clock."""

import numpy as np
import pytest

from federation.toy import make_plan
from fedpace.core.adapter import AdapterLayout, TensorSpec
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.profile import Clients, System
from fedpace.engines.exchange import (
    Exchange,
    decode_update,
    encode_update,
    payload,
    upload_bytes,
)
from fedpace.engines.simulated import SimulatedEngine
from fedpace.experiment.config import Experiment
from fedpace.experiment.methods import hooks_of, method_context, server_of
from fedpace.experiment.parsing import parse
from fedpace.federation.aggregation import Returned
from fedpace.federation.hooks.hook import hooked
from fedpace.federation.hooks.rounding import UPLOAD_BITS
from fedpace.wireless.network import Network

SMALL = AdapterLayout(
    2,
    (TensorSpec("A", (2, 2), "A"), TensorSpec("B", (1, 2), "B"), TensorSpec("head", (3,), "head")),
)
BIG = AdapterLayout(
    16, (TensorSpec("A", (16, 300), "A"), TensorSpec("B", (200, 16), "B"),
         TensorSpec("head", (12, 30), "head")),
)  # fmt: skip


def made(layout, method="flasc", density=0.5, upload_dtype="float32"):
    """The exchange of a method, as both ends make it of an experiment."""
    lora = {"rank": layout.rank, "upload_density": density, "upload_dtype": upload_dtype}
    experiment = parse(Experiment, {"methods": [method], "lora": lora}, "toy")
    about = method_context(experiment, layout, np.array([0.75, 0.25]))
    aggregation, _ = server_of(experiment, method, about)
    initial = {n: np.zeros(s, np.float32) for n, s in layout.shapes(layout.rank).items()}
    return Exchange(layout, initial, aggregation, hooks_of(experiment, method, about, layout))


def arrived(exchange, delta, client=0, rank=None):
    task = ClientTask(client, 0, {}, rank or exchange.layout.rank, 7)
    update = ClientUpdate(client, 0, exchange.components(task), delta, 0.0)
    return decode_update(exchange, encode_update(exchange, update, task), task, 0.0)


def small(a, b, head):
    return {"A": np.float32(a), "B": np.float32(b), "head": np.float32(head)}


def random_update(layout, seed, rank):
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=s).astype(np.float32) for n, s in layout.shapes(rank).items()}


ONE = small([[0.1, -5], [0, 2]], [[0.3, -0.2]], [4, 0.05, -0.25])
TWO = small([[-1, 0.5], [0.4, 0.3]], [[-8, 0.2]], [0.1, -3, 0])


def test_the_four_largest_of_nine_arrive_and_the_mean_is_fedits():
    """Half of nine is four: -5, 2 and 4, and 0.3 before -0.25; then a mean of 3/4 and 1/4."""
    exchange = made(SMALL)
    one, two = arrived(exchange, ONE), arrived(exchange, TWO, client=1)
    for update, expected in (
        (one, small([[0, -5], [0, 2]], [[0.3, 0]], [4, 0, 0])),
        (two, small([[-1, 0.5], [0, 0]], [[-8, 0]], [0, -3, 0])),
    ):
        for name, value in expected.items():
            np.testing.assert_array_equal(update.delta[name], value)
    method = hooked(exchange.aggregation, exchange.hooks)
    back = Returned([one, two], exchange.initial, [0.75, 0.25], [1.0, 1.0])
    result, _ = method.aggregate(exchange.initial, {}, back)
    expected = small([[-0.25, -3.625], [0, 1.5]], [[-1.775, 0]], [3, -0.75, 0])
    for name, value in expected.items():
        np.testing.assert_allclose(result.update[name], value, rtol=1e-6)


@pytest.mark.parametrize("upload_dtype", UPLOAD_BITS)
def test_at_density_1_it_is_fedit_to_the_byte(upload_dtype):
    sparse, dense = (made(BIG, m, 1.0, upload_dtype) for m in ("flasc", "fedit"))
    for rank in (1, 16):
        assert upload_bytes(sparse, rank) == upload_bytes(dense, rank)
        delta = random_update(BIG, 0, rank)
        one, two = (arrived(e, delta, rank=rank).delta for e in (sparse, dense))
        assert all(np.array_equal(one[name], two[name]) for name in delta)


def test_a_density_just_below_1_changes_the_smallest_value_alone():
    delta = random_update(BIG, 1, 16)
    back = arrived(made(BIG, density=1 - 1e-9), delta).delta
    lost = [n for n in delta for x in np.flatnonzero((back[n] != delta[n]).ravel())]
    assert len(lost) == 1
    least = min(np.abs(v).min() for v in delta.values())
    assert np.abs(delta[lost[0]]).min() == least


@pytest.mark.parametrize("density", [0.5, 0.25, 1 / 16, 1e-9])
@pytest.mark.parametrize("upload_dtype, bits", UPLOAD_BITS.items())
def test_values_take_their_bits_and_positions_what_elias_and_fano_need(density, upload_dtype, bits):
    exchange = made(BIG, density=density, upload_dtype=upload_dtype)
    for rank in (1, 5, 16):
        task = ClientTask(0, 0, {}, rank, 7)
        delta = random_update(BIG, 2, rank)
        update = ClientUpdate(0, 0, exchange.components(task), delta, 0.0)
        data = encode_update(exchange, update, task)
        assert len(data) == upload_bytes(exchange, rank)
        size = 500 * rank + 360
        count = max(1, int(density * size))
        places = min(size, count * (2 + np.log2(size / count)))
        header = 8 * len(data) - count * bits - places
        assert 8 * 100 < header < 8 * 280  # names, shapes and offsets; a scale
    sizes = payload(exchange)
    assert sizes.fixed_bits + 16 * sizes.bits_per_rank == 8 * len(data)
    if density > 1e-3:
        a_rank = 500 * density * (bits + min(1 / density, 2 - np.log2(density)))
        assert sizes.bits_per_rank == pytest.approx(a_rank, rel=0.02)


@pytest.mark.parametrize("upload_dtype", UPLOAD_BITS)
def test_what_is_kept_is_read_back_within_its_rounding(upload_dtype):
    delta = random_update(BIG, 3, 16)
    back = arrived(made(BIG, upload_dtype=upload_dtype), delta).delta
    flat = np.concatenate([delta[t.name].ravel() for t in BIG.tensors])
    read = np.concatenate([back[t.name].ravel() for t in BIG.tensors])
    border = np.sort(np.abs(flat))[len(flat) // 2]
    assert not read[np.abs(flat) < border].any()
    level = {"float32": 0, "bfloat16": np.abs(flat) / 256, "int8": np.abs(flat).max() / 126,
             "int4": np.abs(flat).max() / 6.9}[upload_dtype]  # fmt: skip
    assert np.all((np.abs(read - flat) <= level)[np.abs(flat) >= border])


def test_of_equals_the_first_are_sent_and_what_is_not_finite_always():
    exchange = made(SMALL, density=1 / 3)
    equal = small([[1, -1], [1, 1]], [[1, 1]], [1, 1, 1])
    assert arrived(exchange, equal).delta["A"].tolist() == [[1, -1], [1, 0]]
    for odd in (np.nan, np.inf, -np.inf):
        broken = small([[9, 8], [7, 6]], [[5, odd]], [1, 1, 1])
        assert not np.isfinite(arrived(exchange, broken).delta["B"][0, 1])


@pytest.mark.parametrize("upload_dtype", ["float32", "int8"])
def test_the_clock_counts_the_bytes_of_the_wire_and_no_others(upload_dtype):
    """Alone in a band of 1 MHz at 2 bit/s/Hz."""
    exchange = made(BIG, density=1 / 8, upload_dtype=upload_dtype)
    clients = Clients.from_columns(data_weight=[1], step_seconds=[0], spectral_efficiency=[2])
    network = Network(clients, System(bandwidth_hz=1e6, lora_rank=16))

    def train(tasks):
        found = [random_update(BIG, 4, t.sketch_rank) for t in tasks]
        return [ClientUpdate(t.client, t.round_index, exchange.components(t), d, 0.0)
                for t, d in zip(tasks, found, strict=True)]  # fmt: skip

    engine = SimulatedEngine(train, network, exchange, seed=0)
    (k,) = make_plan([1.0], [16]).sketch_rank
    outcome = engine.run_round(0, [ClientTask(0, 0, exchange.initial, int(k), 7)])
    (delivery,) = outcome.deliveries
    assert delivery.upload_bytes == upload_bytes(exchange, 16)
    assert outcome.round_seconds - network.system.overhead_seconds == pytest.approx(
        8 * delivery.upload_bytes / 2e6
    )
