"""What travels: a client sees the bytes of its message and what both ends know, nothing else."""

import numpy as np
import pytest

from federation.toy import LAYOUT, blank, context, exchange, random_adapter
from fedpace.core.adapter import AdapterLayout, TensorSpec, take_components
from fedpace.core.errors import RunError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.sketch import LEADING, RESIDUAL, SCALED
from fedpace.engines.exchange import (
    Exchange,
    decode_task,
    decode_tasks,
    decode_update,
    download_bytes,
    encode_task,
    encode_update,
    payload,
    upload_bytes,
)
from fedpace.federation.hooks.rounding import UPLOAD_BITS, rounding
from fedpace.federation.methods.fedit import fedit
from fedpace.federation.methods.ffa_lora import ffa_lora
from fedpace.federation.methods.flexlora import flexlora
from fedpace.federation.methods.flora import flora
from fedpace.federation.methods.hetlora import hetlora
from fedpace.federation.methods.sketched import sketched

METHODS = {
    "scaled": lambda: sketched(context(SCALED)),
    "residual": lambda: sketched(context(RESIDUAL)),
    **{f.__name__: (lambda f=f: f(context())) for f in (fedit, ffa_lora, hetlora, flexlora, flora)},
}
UPLOADS = list(UPLOAD_BITS)


def made(name, upload_dtype="float32"):
    """Exchange and global adapter of a method in the middle of a run."""
    initial = {n: v * (0 if n.endswith("B") else 1) for n, v in random_adapter(1).items()}
    traffic = exchange(aggregation=METHODS[name](), upload_dtype=upload_dtype, initial=initial)
    adapter, _ = traffic.aggregation.begin(initial)
    moved = {n: v + np.float32(n != "one.A" or name != "ffa_lora") for n, v in adapter.items()}
    if name == "ffa_lora":
        moved |= {n: adapter[n] for n in adapter if n.endswith("A")}
    if name == "flora":
        moved |= {n: adapter[n] for n in random_adapter(1) if n != "head"}
    return traffic, traffic.aggregation.start(moved, 3, 7)


def task(adapter, rank=2):
    return ClientTask(2, 3, adapter, rank, 7)


@pytest.mark.parametrize("name", METHODS)
def test_a_client_has_what_it_starts_from_wherever_it_looks(name):
    """All of the adapter, or the components that its sketch shows it."""
    traffic, adapter = made(name)
    seen = decode_task(traffic, encode_task(traffic, task(adapter)), task({})).adapter
    assert seen.keys() == adapter.keys()
    chosen = np.arange(4) if traffic.aggregation.sketch.whole else traffic.components(task({}))
    for name_, value in take_components(adapter, LAYOUT, chosen).items():
        np.testing.assert_array_equal(take_components(seen, LAYOUT, chosen)[name_], value)
    for extra in adapter.keys() - {t.name for t in LAYOUT.tensors}:
        np.testing.assert_array_equal(seen[extra], adapter[extra])


@pytest.mark.parametrize("name", METHODS)
def test_what_is_not_in_the_bytes_cannot_be_seen(name):
    """Whatever else the server's adapter holds, message and view are the same to the bit."""
    traffic, adapter = made(name)
    data = encode_task(traffic, task(adapter))
    needed = np.arange(4) if traffic.aggregation.sketch.whole else traffic.components(task({}))
    other = {"unknown": np.ones(3, np.float32)}
    for t in (*LAYOUT.tensors, *LAYOUT.merged):
        if t.name not in adapter:
            continue
        value = np.full_like(adapter[t.name], np.nan)
        if t.name in {x.name for x in traffic.received.tensors}:
            index = (
                (slice(None),) * (t.rank_axis or 0) + (needed,) if t.rank_axis is not None else ...
            )
            value[index] = adapter[t.name][index]
        other[t.name] = value
    assert encode_task(traffic, task(other)) == data
    one, two = (
        decode_task(traffic, encode_task(traffic, task(a)), task({})) for a in (adapter, other)
    )
    assert one.adapter.keys() == two.adapter.keys()
    for key, value in one.adapter.items():
        np.testing.assert_array_equal(two.adapter[key], value)
        assert np.isfinite(value).all()
        known = any(value is theirs for theirs in traffic.initial.values())
        assert known or not any(np.shares_memory(value, theirs) for theirs in adapter.values())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("upload_dtype", UPLOADS)
def test_sizes_are_known_before_and_a_payload_is_exact_at_full_rank(name, upload_dtype):
    traffic, adapter = made(name, upload_dtype)
    sizes = payload(traffic)
    for rank in (1, 2, 3, 4):
        given = task(adapter, rank)
        delta = take_components(random_adapter(5), traffic.sent, traffic.components(given))
        update = ClientUpdate(2, 3, traffic.components(given), delta, 0.5)
        up, down = encode_update(traffic, update, given), encode_task(traffic, given)
        assert len(up) == upload_bytes(traffic, rank)
        assert len(down) == download_bytes(traffic, rank)
    assert sizes.fixed_bits + 4 * sizes.bits_per_rank == 8 * len(up)
    assert sizes.download_fixed_bits + 4 * sizes.download_bits_per_rank == 8 * len(down)


@pytest.mark.parametrize("upload_dtype", UPLOADS)
def test_an_update_is_read_back_tensor_by_tensor(upload_dtype):
    traffic, given = exchange(upload_dtype=upload_dtype), task({})
    delta = take_components(random_adapter(5), LAYOUT, traffic.components(given))
    data = encode_update(traffic, ClientUpdate(2, 3, traffic.components(given), delta, 0.5), given)
    back = decode_update(traffic, data, given, 0.5)
    assert (back.client, back.round_index, back.train_loss) == (2, 3, 0.5)
    assert np.array_equal(back.components, traffic.components(given))
    for name, value in delta.items():
        level = {"float32": 0, "bfloat16": np.abs(value) / 256, "int8": np.abs(value).max() / 126,
                 "int4": np.abs(value).max() / 6.9}[upload_dtype]  # fmt: skip
        assert back.delta[name].dtype == np.float32
        assert np.all(np.abs(back.delta[name] - value) <= level)
        assert np.array_equal(back.delta[name], value) == (upload_dtype == "float32")


def test_a_value_takes_its_bits_on_the_wire():
    big = AdapterLayout(64, (TensorSpec("A", (64, 500), "A"), TensorSpec("B", (500, 64), "B")))
    for kind, bits in UPLOAD_BITS.items():
        method = sketched(context(layout=big))
        traffic = Exchange(big, blank(), method, tuple(rounding(kind, big.shapes)))
        grown = upload_bytes(traffic, 40) - upload_bytes(traffic, 20)
        assert abs(grown - 20 * big.values_per_rank * bits / 8) <= 16
        assert payload(traffic).bits_per_rank == bits * big.values_per_rank


@pytest.mark.parametrize("upload_dtype", UPLOADS)
def test_what_is_not_finite_does_not_become_finite_on_its_way(upload_dtype):
    traffic, given = exchange(upload_dtype=upload_dtype), task({})
    for odd in (np.nan, np.inf, -np.inf):
        delta = take_components(random_adapter(5), LAYOUT, traffic.components(given))
        delta["two.B"] = delta["two.B"].copy()
        delta["two.B"][1, 0] = odd
        update = ClientUpdate(2, 3, traffic.components(given), delta, 0.5)
        back = decode_update(traffic, encode_update(traffic, update, given), given, 0.5)
        assert not np.isfinite(back.delta["two.B"][1, 0])
        assert np.isfinite(back.delta["one.B"]).all()


def test_a_message_of_another_type_than_agreed_is_refused():
    """Not read by what it says of itself."""
    given, delta = task({}), None
    for sent, read in (("float32", "int8"), ("int8", "bfloat16"), ("int4", "float32")):
        one, two = exchange(upload_dtype=sent), exchange(upload_dtype=read)
        delta = take_components(random_adapter(5), LAYOUT, one.components(given))
        update = ClientUpdate(2, 3, one.components(given), delta, 0.5)
        with pytest.raises(RunError, match="a message has"):
            decode_update(two, encode_update(one, update, given), given, 0.5)


def test_clients_that_were_sent_the_same_share_one_adapter():
    for name, same in (("residual", True), ("flora", True), ("scaled", False)):
        traffic, adapter = made(name)
        asked = [ClientTask(n, 3, adapter, 1 + n, 7) for n in range(3)]
        seen = decode_tasks(traffic, [encode_task(traffic, t) for t in asked], asked)
        assert (len({id(t.adapter) for t in seen}) == 1) == same


def test_equal_bytes_of_other_components_are_put_at_their_own_places():
    traffic = exchange(SCALED)
    flat = {n: np.ones_like(v) for n, v in random_adapter(1).items()}
    asked = [ClientTask(n, 3, flat, 1, 7) for n in range(6)]
    messages = [encode_task(traffic, t) for t in asked]
    assert len(set(messages)) == 1
    for t in decode_tasks(traffic, messages, asked):
        assert np.flatnonzero(t.adapter["one.A"][:, 0]).tolist() == traffic.components(t).tolist()


def test_a_is_not_sent_where_both_ends_know_it():
    traffic, _ = made("ffa_lora")
    whole = exchange(LEADING)
    a = sum(t.of_rank(2)[0] * t.of_rank(2)[1] for t in LAYOUT.tensors if t.role == "A")
    # Their headers differ by digits at most.
    assert abs(download_bytes(whole, 2) - download_bytes(traffic, 2) - 4 * a) <= 16
