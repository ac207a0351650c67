import numpy as np
import pytest

from federation.toy import LAYOUT, random_adapter
from fedpace.core.adapter import AdapterLayout, TensorSpec, take_components
from fedpace.core.errors import RunError
from fedpace.engines.codec import decode, encode, form_of


def blank(layout, rank):
    return {t.name: np.zeros(t.of_rank(rank), np.float32) for t in layout.tensors}


def form(layout, rank):
    return form_of(blank(layout, rank), layout)


def encoded_bytes(layout, rank):
    return form(layout, rank).length


@pytest.mark.parametrize("components", [[0], [1, 3], [0, 1, 2, 3]])
def test_what_is_encoded_comes_back_to_the_bit(components):
    values = take_components(random_adapter(0), LAYOUT, np.array(components))
    data = encode(values, LAYOUT)
    back = decode(data, LAYOUT, form(LAYOUT, len(components)))
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
    assert decode(encode(values, layout), layout, form(layout, 4)).keys() == values.keys()


def test_a_message_without_a_is_of_b_and_the_head_alone():
    """Square modules without a head: what FFA-LoRA sends is half of what FedIT does."""
    shapes = {"A": (8, 300), "B": (300, 8)}
    whole = AdapterLayout(
        8, tuple(TensorSpec(f"{m}.{r}", shapes[r], r) for m in "xy" for r in shapes)
    )
    half = whole.only(("B", "head"))
    assert abs(encoded_bytes(half, 8) - encoded_bytes(whole, 8) / 2) < 60  # the header stays
    values = {t.name: np.full(t.shape, i, np.float32) for i, t in enumerate(half.tensors)}
    back = decode(encode(values, half), half, form(half, 8))
    assert back.keys() == values.keys()
    assert all(np.array_equal(back[name], values[name]) for name in values)


def test_arrays_beside_the_tensors_travel_as_they_are():
    values = {**random_adapter(0), "scale": np.arange(5, dtype=np.int64)}
    back = decode(encode(values, LAYOUT), LAYOUT, form_of(values, LAYOUT))
    assert back.keys() == values.keys()
    assert np.array_equal(back["scale"], values["scale"])


def test_a_damaged_message_or_one_of_another_form_is_refused():
    from safetensors.numpy import load, save

    data = encode(take_components(random_adapter(0), LAYOUT, np.array([1])), LAYOUT)
    with pytest.raises(RunError, match="not safetensors"):
        decode(data[: len(data) // 2], LAYOUT, form(LAYOUT, 1))
    with pytest.raises(RunError, match="values of 'lora', .* it was to have"):
        decode(data, LAYOUT, form(LAYOUT, 2))
    parts = load(data)
    for name, value in (("lora", parts["lora"].astype(np.int64)), ("lora", parts["lora"][None]),
                        ("more", np.zeros(1, np.float32))):  # fmt: skip
        with pytest.raises(RunError, match=f"values of {name!r}"):
            decode(save({**parts, name: value}), LAYOUT, form(LAYOUT, 1))
    with pytest.raises(RunError, match="0 values of 'head'"):
        decode(save({"lora": parts["lora"]}), LAYOUT, form(LAYOUT, 1))
    with pytest.raises(RunError, match="bytes; .* were to come"):
        decode(save({**parts, "more": np.zeros(1000, np.float32)}), LAYOUT, form(LAYOUT, 1))
