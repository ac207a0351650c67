import numpy as np
import pytest

from federation.toy import LAYOUT, random_adapter
from fedpace.core.adapter import AdapterLayout, TensorSpec, take_components
from fedpace.core.errors import RunError
from fedpace.engines.codec import decode, encode, encoded_bytes
from fedpace.engines.quantise import from_bfloat16, from_int8, to_bfloat16, to_int8


@pytest.mark.parametrize("components", [[0], [1, 3], [0, 1, 2, 3]])
def test_what_is_encoded_comes_back_to_the_bit(components):
    values = take_components(random_adapter(0), LAYOUT, np.array(components))
    data = encode(values, LAYOUT)
    back = decode(data, LAYOUT, len(components))
    assert back.keys() == values.keys()
    for name in values:
        assert np.array_equal(back[name], values[name])


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_predicted_size_is_the_size_of_a_real_message(rank):
    values = take_components(random_adapter(0), LAYOUT, np.arange(rank))
    assert encoded_bytes(LAYOUT, rank) == len(encode(values, LAYOUT))


def test_a_message_grows_by_exactly_its_values():
    big = AdapterLayout(64, tuple(
        type(t)(t.name, tuple(64 if i == t.rank_axis else s * 50 for i, s in enumerate(t.shape)),
                t.role)
        for t in LAYOUT.tensors
    ))  # fmt: skip
    grown = encoded_bytes(big, 40) - encoded_bytes(big, 20)
    assert abs(grown - 20 * 4 * big.values_per_rank) <= 16  # digits of a length in the header


def test_a_message_without_head_is_encoded_too():
    layout = AdapterLayout(4, tuple(t for t in LAYOUT.tensors if t.role != "head"))
    values = {t.name: random_adapter(0)[t.name] for t in layout.tensors}
    assert decode(encode(values, layout), layout, 4).keys() == values.keys()


def test_a_message_without_a_is_of_b_and_the_head_alone():
    """Square modules without a head: what FFA-LoRA sends is half of what FedIT does."""
    shapes = {"A": (8, 300), "B": (300, 8)}
    whole = AdapterLayout(
        8, tuple(TensorSpec(f"{m}.{r}", shapes[r], r) for m in "xy" for r in shapes)
    )
    half = whole.only(("B", "head"))
    assert abs(encoded_bytes(half, 8) - encoded_bytes(whole, 8) / 2) < 60  # the header stays
    values = {t.name: np.full(t.shape, i, np.float32) for i, t in enumerate(half.tensors)}
    back = decode(encode(values, half), half, 8)
    assert back.keys() == values.keys()
    assert all(np.array_equal(back[name], values[name]) for name in values)


def updates(count=20_000, seed=0):
    """Values over many orders of magnitude, as updates have them."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=count) * 10.0 ** rng.uniform(-8, 2, count)).astype(np.float32)


@pytest.mark.torch
def test_bfloat16_is_torchs():
    torch = pytest.importorskip("torch")
    values = np.concatenate([updates(), np.float32([0, -0.0, 1e-40, np.inf, -np.inf, 3.3e38])])
    expected = torch.from_numpy(values).to(torch.bfloat16)
    assert torch.equal(torch.from_numpy(from_bfloat16(to_bfloat16(values))), expected.float())
    assert np.isnan(from_bfloat16(to_bfloat16(np.float32([np.nan, -np.nan])))).all()


def test_int8_has_no_bias_and_an_error_below_one_level():
    values = updates(50)
    draws = [to_int8(values, np.random.default_rng(i)) for i in range(4000)]
    scale = draws[0][1]
    assert scale == pytest.approx(np.abs(values).max() / 127)
    read = np.array([from_int8(levels, scale) for levels, _ in draws])
    assert np.abs(read - values).max() <= scale * (1 + 1e-5)
    # A level's deviation is at most 1/2; five standard errors.
    np.testing.assert_allclose(read.mean(axis=0), values, atol=5 * 0.5 * scale / np.sqrt(4000))


def test_the_chance_of_the_upper_level_is_the_distance_from_the_lower_one():
    """Exact: with u on a grid, the share of u that rounds up is the fraction."""

    class Grid:
        def random(self, size, dtype):
            return (np.arange(size) / size).astype(dtype)

    levels, scale = to_int8(np.array([127.0] + [0.3] * 999, np.float32), Grid())
    assert scale == 1.0
    assert levels[1:].sum() == pytest.approx(0.3 * 999, abs=2)


def test_int8_of_nothing_but_zeros_and_of_what_is_not_finite():
    rng = np.random.default_rng(0)
    assert not from_int8(*to_int8(np.zeros(5, np.float32), rng)).any()
    assert np.isnan(from_int8(*to_int8(np.float32([1.0, np.inf]), rng))).all()
    assert np.isnan(from_int8(*to_int8(np.float32([1.0, np.nan]), rng))).all()


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
@pytest.mark.parametrize("components", [[0], [1, 3]])
def test_a_rounded_message_is_read_back_tensor_by_tensor(kind, components):
    values = take_components(random_adapter(0), LAYOUT, np.array(components))
    data = encode(values, LAYOUT, kind, np.random.default_rng(1))
    assert len(data) == encoded_bytes(LAYOUT, len(components), kind)
    back = decode(data, LAYOUT, len(components))
    assert back.keys() == values.keys()
    for name, value in values.items():
        assert back[name].dtype == np.float32
        allowed = {"bfloat16": np.abs(value) / 256, "int8": np.abs(value).max() / 126}[kind]
        assert np.all(np.abs(back[name] - value) <= allowed)
        assert not np.array_equal(back[name], value)


def test_a_rounded_message_grows_by_one_or_two_bytes_a_value():
    big = AdapterLayout(64, (TensorSpec("A", (64, 500), "A"), TensorSpec("B", (500, 64), "B")))
    for kind, size in (("float32", 4), ("bfloat16", 2), ("int8", 1)):
        grown = encoded_bytes(big, 40, kind) - encoded_bytes(big, 20, kind)
        assert abs(grown - 20 * size * big.values_per_rank) <= 16


def test_an_int8_message_without_its_scales_is_refused():
    from safetensors.numpy import load, save

    values = take_components(random_adapter(0), LAYOUT, np.array([0]))
    parts = load(encode(values, LAYOUT, "int8", np.random.default_rng(1)))
    with pytest.raises(RunError, match="2 scales; the adapter has 5 tensors"):
        decode(save({**parts, "scale": parts["scale"][:2].copy()}), LAYOUT, 1)
    with pytest.raises(RunError, match="values of type int64"):
        decode(save({n: v.astype(np.int64) for n, v in parts.items() if n != "scale"}), LAYOUT, 1)


def test_a_damaged_message_or_one_of_another_rank_is_refused():
    data = encode(take_components(random_adapter(0), LAYOUT, np.array([1])), LAYOUT)
    with pytest.raises(RunError, match="not safetensors"):
        decode(data[: len(data) // 2], LAYOUT, 1)
    with pytest.raises(RunError, match="rank 2 needs"):
        decode(data, LAYOUT, 2)
