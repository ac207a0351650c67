"""Updates merged into the base weights: training, evaluation and saving see them, and only they."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel

from fedpace.core.adapter import MERGED
from fedpace.core.errors import InputError
from fedpace.core.sketch import LEADING, RESIDUAL, SCALED
from fedpace.federation.aggregation import MethodContext, Returned
from fedpace.federation.methods.flora import flora
from fedpace.lora import evaluate, loop, save_adapter, stacked
from fedpace.lora.adapter import write_adapter
from fedpace.lora.merged import merged_into_base
from lora import plain_peft, tiny_models
from lora.tiny_models import STEPS

pytestmark = pytest.mark.torch

MODELS = [
    ("bert", "classification", None),
    ("gpt2", "classification", None),
    ("llama", "causal-lm", ["q_proj", "embed_tokens", "down_proj"]),
]


def with_merged(model, adapter, seed=5, rank=3):
    """An adapter that carries random products of that rank."""
    rng = np.random.default_rng(seed)
    merged = {}
    for a, b in model.layout.modules:
        columns = rng.normal(0, 0.3, (b.shape[0], rank))
        rows = rng.normal(0, 0.3, (rank, int(np.prod(a.shape[1:]))))
        merged[MERGED + a.name] = (columns @ rows).astype(np.float32)
    return {**adapter, **merged}


def weights_of(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize(("architecture", "task", "targets"), MODELS)
def test_a_merged_adapter_gives_the_logits_of_the_unmerged_one(folder, architecture, task, targets):
    """B A in the base and B zero is B A in the adapter."""
    model, adapter = tiny_models.adapted(folder(architecture), task, targets=targets)
    ids = torch.tensor([[7, 8, 9, 20], [5, 30, 31, 6]])
    write_adapter(model, adapter)
    expected = model.model(input_ids=ids).logits
    moved = dict(adapter)
    for a, b in model.layout.modules:
        moved[MERGED + a.name] = adapter[b.name] @ adapter[a.name]
        moved[b.name] = np.zeros_like(adapter[b.name])
    write_adapter(model, moved)
    assert not torch.allclose(model.model(input_ids=ids).logits, expected, atol=1e-3)
    before = weights_of(model.model)
    with merged_into_base(model, moved):
        torch.testing.assert_close(model.model(input_ids=ids).logits, expected)
    after = weights_of(model.model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_weights_come_back_to_the_bit_also_after_an_error(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    before = weights_of(model.model)
    with pytest.raises(ZeroDivisionError), merged_into_base(model, with_merged(model, adapter)):
        1 / 0
    after = weights_of(model.model)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("train", ["loop", "stacked"])
def test_one_client_of_flora_is_plain_lora_merged_by_peft(folder, train):
    model, _ = tiny_models.adapted(folder("bert"))
    method = flora(MethodContext(model.layout, RESIDUAL, np.empty(0)))
    adapter, memory = method.begin(model.initial)
    start = method.start(adapter, 0, 3)
    training = replace(STEPS, sketch=LEADING, learning_rate=0.5)
    clients = tiny_models.shards(model)
    (task,) = tiny_models.tasks(start, [4])
    if train == "loop":
        (update,) = loop.train_loop(model, clients, training, [task])
    else:
        (update,) = stacked.train_stacked(model, clients, training, 4096, [task])
    result, _ = method.aggregate(adapter, memory, Returned([update], start, [0.2], [0.4]))
    after = {name: adapter[name] + result.update[name] for name in adapter}

    trained = {name: start[name] + update.delta[name] for name in update.delta}
    peft = plain_peft.load(folder("bert"), "SEQ_CLS", 4, 8.0, trained)
    merged = dict(peft.merge_and_unload().named_parameters())
    write_adapter(model, after)
    seen = 0
    with merged_into_base(model, after):
        for name, layer in model.lora_modules.items():
            theirs = merged[name.removeprefix("base_model.model.") + ".weight"]
            ours = layer.get_base_layer().weight
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
            seen += 1
    assert seen == 4


@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL, LEADING])
def test_stacked_equals_loop_on_a_merged_base(folder, sketch):
    model, adapter = tiny_models.adapted(folder("bert"))
    clients, training = tiny_models.shards(model), replace(STEPS, sketch=sketch)
    work = tiny_models.tasks(with_merged(model, adapter), [4, 2, 1, 3])
    plain = tiny_models.tasks(adapter, [4, 2, 1, 3])
    together = stacked.train_stacked(model, clients, training, 4096, work)
    for ours, other, without in zip(
        together,
        loop.train_loop(model, clients, training, work),
        loop.train_loop(model, clients, training, plain),
        strict=True,
    ):
        assert ours.train_loss == pytest.approx(other.train_loss, abs=1e-5)
        assert ours.train_loss != pytest.approx(without.train_loss, abs=1e-3)
        for name, value in other.delta.items():
            np.testing.assert_allclose(ours.delta[name], value, atol=1e-5)


def test_tasks_that_have_merged_different_updates_are_refused(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    one, two = (with_merged(model, adapter, seed) for seed in (1, 2))
    work = [*tiny_models.tasks(one, [4]), *tiny_models.tasks(two, [4])]
    with pytest.raises(InputError, match="merged different updates"):
        stacked.train_stacked(model, tiny_models.shards(model), STEPS, 4096, work)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
def test_a_weight_that_others_share_is_refused(folder):
    model, adapter = tiny_models.adapted(folder("gpt2"), "causal-lm", targets=["lm_head", "c_attn"])
    with (
        pytest.raises(InputError, match=r"lm_head shares its weight with .*wte"),
        merged_into_base(model, with_merged(model, adapter)),
    ):
        pass


def test_a_quantised_weight_is_refused(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    linear = next(iter(model.lora_modules.values())).get_base_layer()
    packed = torch.zeros(linear.weight.shape, dtype=torch.uint8)  # as bitsandbytes holds it
    linear.weight = torch.nn.Parameter(packed, requires_grad=False)
    with (
        pytest.raises(InputError, match="is quantised; set .model. quantization = 'none'"),
        merged_into_base(model, with_merged(model, adapter)),
    ):
        pass


@pytest.mark.parametrize(("architecture", "task", "targets"), MODELS)
def test_what_is_saved_gives_the_same_logits_on_the_untouched_base(
    folder, tmp_path, architecture, task, targets
):
    model, adapter = tiny_models.adapted(folder(architecture), task, targets=targets)
    adapter = with_merged(model, adapter, rank=3)
    save_adapter(model, adapter, tmp_path)
    kind = plain_peft.CLASSES["SEQ_CLS" if task == "classification" else "CAUSAL_LM"]
    plain = kind.from_pretrained(
        folder(architecture), **({"num_labels": 3} if task == "classification" else {})
    )
    plain.config.pad_token_id = model.base.model.config.pad_token_id
    loaded = PeftModel.from_pretrained(plain, tmp_path).eval()
    assert loaded.peft_config["default"].r == 7  # 4 of the adapter, 3 merged
    ids = torch.tensor([[7, 8, 9, 20], [5, 30, 31, 6]])
    write_adapter(model, adapter)
    with merged_into_base(model, adapter):
        ours = model.model(input_ids=ids).logits
    torch.testing.assert_close(loaded(input_ids=ids).logits, ours, atol=1e-4, rtol=1e-4)
    assert model.model.peft_config["default"].r == 4


def test_evaluation_sees_what_is_merged(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    held_out = tiny_models.shards(model)[0]
    moved = dict(adapter)
    for a, b in model.layout.modules:
        moved[MERGED + a.name] = adapter[b.name] @ adapter[a.name]
        moved[b.name] = np.zeros_like(adapter[b.name])
    assert evaluate(model, moved, held_out) == pytest.approx(evaluate(model, adapter, held_out))
    without = {name: value for name, value in moved.items() if not name.startswith(MERGED)}
    assert evaluate(model, without, held_out)["loss"] != pytest.approx(
        evaluate(model, adapter, held_out)["loss"], abs=1e-3
    )
