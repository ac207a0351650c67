import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model

from fedpace.core.errors import InputError
from fedpace.lora import attach_adapter, load_base, read_adapter, save_adapter
from fedpace.lora.adapter import write_adapter
from lora import tiny_models
from lora.plain_peft import CLASSES

pytestmark = pytest.mark.torch


def bert(folder):
    return load_base(folder("bert"), task="classification", num_labels=3)


def test_the_layout_counts_what_peft_makes_trainable(folder):
    model, _ = tiny_models.adapted(folder("bert"))
    # 2 layers, query and value, 16 -> 16; a head of 16 x 3 and 3.
    assert model.layout.rank == 4
    assert model.layout.values_per_rank == 2 * 2 * (16 + 16)
    assert model.layout.head_values == 16 * 3 + 3
    parameters = dict(model.model.named_parameters())
    for t in model.layout.tensors:
        assert tuple(parameters[t.name].shape) == t.shape


@pytest.mark.parametrize(
    ("architecture", "task", "targets", "pairs", "heads"),
    [
        ("bert", "classification", None, 4, 2),
        ("bert", "classification", ["attention.output.dense"], 2, 2),
        ("bert", "classification", ["bert.encoder.layer.1.intermediate.dense"], 1, 2),
        ("roberta", "classification", ["dense"], 6, 4),  # not those inside the head
        ("distilbert", "classification", ["q_lin"], 2, 4),  # two layers in the head
        ("gpt2", "causal-lm", None, 2, 0),
        ("gpt2", "classification", ["c_attn", "c_proj"], 6, 1),
        ("llama", "causal-lm", ["q_proj", "embed_tokens"], 3, 0),
    ],
)
def test_every_targeted_module_has_its_a_and_b(folder, architecture, task, targets, pairs, heads):
    model, _ = tiny_models.adapted(folder(architecture), task, targets=targets)
    roles = [t.role for t in model.layout.tensors]
    assert [roles.count(role) for role in ("A", "B", "head")] == [pairs, pairs, heads]
    for t in model.layout.tensors:
        if t.rank_axis is not None:
            assert t.shape[t.rank_axis] == 4


def test_a_module_that_is_called_like_pefts_own_does_not_confuse_the_roles(folder):
    base = bert(folder)
    for layer in base.model.bert.encoder.layer:
        layer.attention.self.lora_B = layer.attention.self.query
        layer.attention.self.query = torch.nn.Identity()
        layer.attention.self.forward = None
    model = attach_adapter(base, rank=4, alpha=8, target_modules=["lora_B"])
    roles = {t.name.split("lora_B.", 1)[1]: t.role for t in model.layout.tensors[:2]}
    assert roles == {"lora_A.default.weight": "A", "lora_B.default.weight": "B"}


def test_the_initial_adapter_changes_nothing_and_is_spread_as_peft_spreads_it(folder):
    model, _ = tiny_models.adapted(folder("bert"), rank=16)
    bound = 1 / np.sqrt(16)
    for t in model.layout.tensors:
        value = model.initial[t.name]
        assert value.dtype == np.float32 and value.shape == t.shape
        if t.role == "B":
            assert not value.any()
        if t.role == "A":
            assert np.abs(value).max() <= bound
            assert value.std() == pytest.approx(bound / np.sqrt(3), rel=0.15)


def test_of_an_adapted_embedding_a_is_zero_and_b_is_not(folder):
    model, _ = tiny_models.adapted(folder("llama"), "causal-lm", targets=["embed_tokens"])
    a, b = (model.initial[t.name] for t in model.layout.tensors)
    assert not a.any() and b.all()


def test_the_seed_alone_decides_the_initial_adapter_and_head(folder):
    def initial(seed):
        base = load_base(folder("distilbert"), task="classification", num_labels=3, seed=seed)
        return attach_adapter(base, rank=4, alpha=8, target_modules=["q_lin"], seed=seed).initial

    state = torch.random.get_rng_state()
    first = initial(5)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    second, other = initial(5), initial(6)
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value)
        if value.any():
            assert not np.array_equal(other[name], value)


@pytest.mark.slow
def test_another_process_starts_from_the_same_adapter(folder):
    script = (
        "import sys, hashlib; from lora import tiny_models\n"
        "model, _ = tiny_models.adapted(sys.argv[1])\n"
        "print(hashlib.sha256(b''.join(v.tobytes() for v in model.initial.values())).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, folder("bert")],
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path), "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    here, _ = tiny_models.adapted(folder("bert"))
    found = hashlib.sha256(b"".join(v.tobytes() for v in here.initial.values())).hexdigest()
    assert other.stdout.strip() == found


@pytest.mark.parametrize(
    ("architecture", "task", "targets"),
    [
        ("bert", "classification", None),
        ("roberta", "classification", None),
        ("distilbert", "classification", ["q_lin", "v_lin"]),
        ("gpt2", "classification", None),
        ("gpt2", "causal-lm", None),
        ("llama", "causal-lm", ["q_proj", "embed_tokens", "lm_head"]),
    ],
)
def test_a_saved_adapter_gives_the_same_logits_when_peft_loads_it(
    folder, tmp_path, architecture, task, targets
):
    model, adapter = tiny_models.adapted(folder(architecture), task, targets=targets)
    save_adapter(model, adapter, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8.0)

    options = {"num_labels": 3} if task == "classification" else {}
    kind = CLASSES["SEQ_CLS" if task == "classification" else "CAUSAL_LM"]
    torch.manual_seed(77)  # another head than ours, until the adapter is loaded
    plain = kind.from_pretrained(folder(architecture), **options)
    plain.config.pad_token_id = model.base.model.config.pad_token_id
    loaded = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()

    ids = torch.tensor([[7, 8, 9, 20], [5, 30, 31, 6]])
    ours = model.model(input_ids=ids).logits
    assert torch.equal(loaded(input_ids=ids).logits, ours)
    write_adapter(model, model.initial)
    assert not torch.allclose(model.model(input_ids=ids).logits, ours, atol=1e-3)


def test_what_is_written_is_read_back(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    write_adapter(model, adapter)
    found = read_adapter(model)
    assert found.keys() == adapter.keys()
    for name, value in adapter.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_an_adapter_of_another_model_is_refused(folder, change):
    model, adapter = tiny_models.adapted(folder("bert"))
    name = model.layout.tensors[1].name
    if change == "missing":
        del adapter[name]
    else:
        adapter[name] = adapter[name].T
    with pytest.raises(InputError, match=f"{name} is .*made for another model"):
        write_adapter(model, adapter)


def test_the_head_is_float32_under_a_base_of_lower_precision(folder):
    model, adapter = tiny_models.adapted(folder("bert"), dtype="bfloat16")
    parameters = dict(model.model.named_parameters())
    assert {parameters[t.name].dtype for t in model.layout.tensors} == {torch.float32}
    assert model.base.model.dtype == torch.bfloat16
    write_adapter(model, adapter)
    assert model.model(input_ids=torch.tensor([[7, 8]])).logits.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "lora.rank is 0"),
        ({"rank": 17}, r"lora.rank is 17; module .*query allows at most 16"),
        ({"target_modules": []}, "target_modules is empty; name some of: dense, key"),
        ({"target_modules": ["q_proj"]}, 'no module "q_proj" to adapt; it has dense, key'),
        ({"target_modules": ["query", "uery"]}, 'no module "uery"'),
        (
            {"target_modules": ["LayerNorm"]},
            "LayerNorm is a LayerNorm, which cannot be adapted in bert; those that can are dense",
        ),
    ],
)
def test_what_cannot_be_adapted_is_named(folder, options, message):
    with pytest.raises(InputError, match=message):
        attach_adapter(bert(folder), **{"rank": 4, "alpha": 8, **options})


def test_a_trainable_tensor_without_a_role_is_an_error(folder, monkeypatch):
    """None is left behind by the PEFT of today; one of tomorrow may make others trainable."""

    def with_one_more(*arguments):
        model = get_peft_model(*arguments)
        model.get_input_embeddings().weight.requires_grad_(True)
        return model

    monkeypatch.setattr("fedpace.lora.adapter.get_peft_model", with_one_more)
    with pytest.raises(InputError, match=r"without a role: .*word_embeddings\.weight"):
        attach_adapter(bert(folder), rank=4, alpha=8)


def test_a_second_adapter_is_refused(folder):
    model, _ = tiny_models.adapted(folder("bert"))
    with pytest.raises(InputError, match="has an adapter already"):
        attach_adapter(model.base, rank=2, alpha=4)
