"""PEFT's conventions: which modules, which scale, what is trained whole, where to start."""

import json
import logging

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer

from fedpace.core.errors import InputError
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.lora import LocalTraining, attach_adapter, load_base, save_adapter
from fedpace.lora.adapter import write_adapter
from fedpace.lora.loop import train_loop
from fedpace.lora.stacked import train_stacked
from fedpace.lora.start import load_start
from lora import tiny_models
from lora.plain_peft import CLASSES

pytestmark = pytest.mark.torch
IDS = torch.tensor([[7, 8, 9, 20], [5, 30, 31, 6]])


def attach(folder, architecture="bert", **options):
    task = "causal-lm" if architecture in tiny_models.DECODERS else "classification"
    labels = None if task == "causal-lm" else 3
    base = load_base(folder(architecture), task=task, num_labels=labels, threads=1)
    return attach_adapter(base, **{"rank": 4, "alpha": 8.0, **options})


def plain_base(folder, architecture):
    if architecture in tiny_models.DECODERS:
        return CLASSES["CAUSAL_LM"].from_pretrained(folder(architecture))
    return CLASSES["SEQ_CLS"].from_pretrained(folder(architecture), num_labels=3)


@pytest.mark.parametrize(
    ("architecture", "targets", "whole"),
    [
        ("llama", "all-linear", None),
        ("gpt2", "All-Linear", None),
        ("bert", "all-linear", ["classifier"]),
        ("llama", r".*layers\.1\..*(q|v)_proj", None),
        ("bert", r".*\.attention\.output\.dense", ["classifier"]),
    ],
)
def test_the_modules_are_those_that_peft_takes(folder, architecture, targets, whole):
    kind = "CAUSAL_LM" if whole is None else "SEQ_CLS"
    config = LoraConfig(
        task_type=kind, r=4, target_modules=targets, modules_to_save=whole,
        fan_in_fan_out=architecture == "gpt2",
    )  # fmt: skip
    theirs = get_peft_model(plain_base(folder, architecture), config)
    expected = {n for n, m in theirs.named_modules() if isinstance(m, LoraLayer)}
    assert attach(folder, architecture, target_modules=targets).lora_modules.keys() == expected


def test_without_a_default_all_linear_layers_but_the_head_are_adapted_and_it_is_said(
    folder, caplog
):
    model = attach(folder, "distilbert")
    assert {name.rpartition(".")[2] for name in model.lora_modules} == {
        "q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2",
    }  # fmt: skip
    assert "no default target modules for distilbert: all linear layers" in caplog.text


def test_layers_narrower_than_the_rank_are_left_out_of_all_and_named(folder, caplog):
    model = attach(folder, "llama", target_modules="all-linear", rank=12)
    assert "narrower than [lora] rank = 12: k_proj, v_proj" in caplog.text
    assert not any(name.endswith("k_proj") for name in model.lora_modules)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapted_tied_weight_is_told_of(folder, caplog, target, monkeypatch):
    base = load_base(folder("llama"), task="causal-lm", threads=1)
    attach_adapter(base, rank=4, alpha=8, target_modules=[target])
    assert "shares its weight" not in caplog.text  # llama's are two
    base = load_base(folder("gpt2"), task="causal-lm", threads=1)
    with caplog.at_level(logging.WARNING):
        name = {"lm_head": "lm_head", "embed_tokens": "wte"}[target]
        attach_adapter(base, rank=4, alpha=8, target_modules=[name])
    assert f"{name} shares its weight with" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": ".*q_proj"}, r"no module that matches '\.\*q_proj' to adapt; it has"),
        ({"target_modules": "query("}, r"'query\(' is no regular expression"),
        ({"target_modules": r".*\.attention"}, "attention is a BertAttention, which cannot be"),
        ({"target_modules": "all-linear", "rank": 30}, "every linear layer .* is narrower"),
        ({"init_lora_weights": False}, "False is refused .B would be random"),
        ({"init_lora_weights": "pissa"}, "'pissa' is refused .only draws that leave the base"),
        ({"modules_to_save": ["nothing"]}, 'no module "nothing" with parameters; it has LayerNorm'),
    ],
)
def test_what_is_refused_says_why(folder, options, message):
    with pytest.raises(InputError, match=message) as caught:
        attach(folder, **options)
    assert "\n" not in str(caught.value)


def test_a_tied_module_is_not_trained_whole(folder):
    with pytest.raises(InputError, match="lm_head shares its weight with .*wte, and trained whole"):
        attach(folder, "gpt2", modules_to_save=["lm_head"])


@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL], ids=["scaled", "residual"])
@pytest.mark.parametrize("stacked", [False, True], ids=["loop", "stacked"])
def test_rank_stabilised_is_plain_lora_of_sqrt_r_times_the_alpha(folder, sketch, stacked):
    training = LocalTraining(local_steps=2, batch_size=4, learning_rate=0.05, sketch=sketch)
    updates = []
    for options in ({"use_rslora": True, "alpha": 8.0}, {"alpha": 16.0}):  # r = 4
        model = attach(folder, **options)
        work = tiny_models.tasks(tiny_models.warm(model), [2, 4])
        clients = tiny_models.shards(model)
        if stacked:
            updates.append(train_stacked(model, clients, training, 4096, work))
        else:
            updates.append(train_loop(model, clients, training, work))
    for ours, reference in zip(*updates, strict=True):
        for name, value in reference.delta.items():
            np.testing.assert_allclose(ours.delta[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"modules_to_save": ["attention.output.LayerNorm", "intermediate.dense"]},
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.1\..*(query|key)"},
    ],
    ids=str,
)
def test_peft_loads_what_was_saved_and_a_run_starts_from_it(folder, tmp_path, options):
    model = attach(folder, **options)
    adapter = tiny_models.warm(model)
    save_adapter(model, adapter, tmp_path)
    for name, value in load_start(model, tmp_path).items():
        np.testing.assert_array_equal(value, adapter[name])
    loaded = PeftModel.from_pretrained(plain_base(folder, "bert"), tmp_path).eval()
    write_adapter(model, adapter)
    assert torch.equal(loaded(input_ids=IDS).logits, model.model(input_ids=IDS).logits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_modules_trained_whole_are_trained_alike_by_loop_and_stack(folder, dtype):
    base = load_base(folder("bert"), task="classification", num_labels=3, dtype=dtype, threads=1)
    whole = ["attention.output.LayerNorm", "word_embeddings"]
    model = attach_adapter(base, rank=4, alpha=8.0, modules_to_save=whole)
    assert sum(t.role == "head" for t in model.layout.tensors) == 2 + 2 * 2 + 1
    work = tiny_models.tasks(tiny_models.warm(model), [2, 4])
    clients = tiny_models.shards(model)
    loop = train_loop(model, clients, tiny_models.STEPS, work)
    together = train_stacked(model, clients, tiny_models.STEPS, 4096, work)
    for ours, reference in zip(together, loop, strict=True):
        for t in model.layout.tensors:
            assert reference.delta[t.name].any() and ours.delta[t.name].dtype == np.float32
            if dtype == "float32":
                np.testing.assert_allclose(
                    ours.delta[t.name], reference.delta[t.name], rtol=1e-3, atol=1e-5
                )


def test_a_gaussian_draw_has_pefts_spread(folder):
    model = attach(folder, rank=8, init_lora_weights="gaussian")
    drawn = np.concatenate([model.initial[a.name].ravel() for a, _ in model.layout.modules])
    assert drawn.std() == pytest.approx(1 / 8, rel=0.1)
    assert not any(model.initial[b.name].any() for _, b in model.layout.modules)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"rank": 2}, {}, "has rank 4, .lora. rank is 2; set rank = 4"),
        ({"alpha": 4.0}, {}, r"has lora_alpha 8\.0 and use_rslora False, .lora. has 4 and False"),
        ({"target_modules": ["key"]}, {}, r"nothing for .*key.*target_modules = .*query"),
        ({"target_modules": ["query"]}, {}, "tensors that are not adapted here"),
        ({}, {"use_dora": True}, "DoRA's magnitudes belong to no rank component"),
        ({}, {"rank_pattern": {"query": 2}}, "one index set must fit all modules"),
        ({}, {"bias": "all"}, "trains biases"),
        ({}, {"peft_type": "IA3"}, "is no LoRA adapter"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(folder, tmp_path, options, change, message):
    model = attach(folder)
    save_adapter(model, tiny_models.warm(model), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        load_start(attach(folder, **options), tmp_path)


def test_a_folder_without_an_adapter_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"no adapter_config\.json can be read"):
        load_start(attach(folder), tmp_path / "none")
