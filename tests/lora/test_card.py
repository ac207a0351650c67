"""What lies beside an adapter: the lines of its README load it, and PEFT's own classes do."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from fedpace.lora import evaluate, save_adapter, tokenise
from fedpace.lora.adapter import attach_adapter
from fedpace.lora.card import describe_adapter
from fedpace.lora.model import load_base
from lora import tiny_models

pytestmark = pytest.mark.torch
NAMES = ["harm'less\\", 'urgent: "now"', "unclear\n"]


def saved(source, folder, task="classification", pooling="model", layers=None, seed=0):
    """An adapter that says something, its folder described, and its model."""
    base = load_base(
        str(source), task=task, num_labels=3 if task == "classification" else None,
        pooling=pooling, layers=layers, seed=seed,
    )  # fmt: skip
    adapted = attach_adapter(base, rank=4, alpha=8.0, seed=seed)
    rng = np.random.default_rng(seed)
    adapter = {
        name: (value + rng.normal(scale=0.1, size=value.shape)).astype(np.float32)
        for name, value in adapted.initial.items()
    }
    save_adapter(adapted, adapter, folder)
    facts = {
        "name": str(source), "task": task, "layers": layers, "max_length": 16,
        "trust_remote_code": False,
        "label_names": NAMES if task == "classification" else None,
        "pooling": pooling if task == "classification" else None,
    }  # fmt: skip
    describe_adapter(adapted, facts, folder)
    return adapted, adapter


def logits(model, tokenizer):
    inputs = tokenizer(["w1 w2 w3", "w7"], padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        ).logits.numpy()


def ours(adapted, adapter):
    from torch.func import functional_call

    from fedpace.lora.adapter import to_tensors

    inputs = adapted.base.tokenizer(["w1 w2 w3", "w7"], padding=True, return_tensors="pt")
    options = {n: inputs[n] for n in ("input_ids", "attention_mask")}
    with torch.no_grad():
        output = functional_call(adapted.model, to_tensors(adapted, adapter), (), options,
                                 tie_weights=False)  # fmt: skip
    return output.logits.numpy()


def programs(folder):
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)


KINDS = [
    ("bert", {}),
    ("bert", {"pooling": "mean"}),
    ("bert", {"layers": 1}),
    ("llama", {}),
    ("llama", {"task": "causal-lm"}),
    ("llama", {"task": "causal-lm", "layers": 1}),
]


@pytest.mark.parametrize(("kind", "how"), KINDS)
def test_the_lines_of_the_readme_load_the_adapter(kind, how, folder, tmp_path):
    adapted, adapter = saved(folder(kind), tmp_path, **how)
    text = (tmp_path / "README.md").read_text()
    made = {}
    exec(programs(tmp_path)[0], made)
    np.testing.assert_allclose(
        logits(made["model"], made["tokenizer"]), ours(adapted, adapter), atol=1e-5
    )
    if how.get("task") != "causal-lm":
        assert made["label_names"] == NAMES
        assert json.dumps(NAMES[1]) in text


@pytest.mark.parametrize(("kind", "how"), [("bert", {}), ("bert", {"layers": 1}), ("llama", {})])
def test_pefts_automatic_class_loads_a_classifier_without_help(kind, how, folder, tmp_path):
    from peft import AutoPeftModelForSequenceClassification

    adapted, adapter = saved(folder(kind), tmp_path, **how)
    model = AutoPeftModelForSequenceClassification.from_pretrained(str(tmp_path)).eval()
    np.testing.assert_allclose(
        logits(model, adapted.base.tokenizer), ours(adapted, adapter), atol=1e-5
    )
    config = model.get_base_model().config
    assert config.num_labels == 3
    assert [config.id2label[n] for n in range(3)] == NAMES
    assert config.label2id == {name: n for n, name in enumerate(NAMES)}


@pytest.mark.parametrize(("kind", "how"), KINDS)
def test_a_folder_that_was_copied_elsewhere_loads_with_the_same_lines(
    kind, how, folder, tmp_path, monkeypatch
):
    written, moved = tmp_path / "run" / "adapter", tmp_path / "else where" / "adapter"
    adapted, adapter = saved(folder(kind), written, **how)
    shutil.copytree(written, moved, symlinks=True)
    shutil.rmtree(written.parent)
    monkeypatch.chdir(moved)
    made = {}
    exec(programs(moved)[0], made)
    np.testing.assert_allclose(
        logits(made["model"], made["tokenizer"]), ours(adapted, adapter), atol=1e-5
    )


def test_after_a_move_the_automatic_class_is_told_where_the_base_is(folder, tmp_path, monkeypatch):
    from peft import AutoPeftModelForSequenceClassification

    written, moved = tmp_path / "run", tmp_path / "moved"
    adapted, adapter = saved(folder("bert"), written)
    shutil.move(written, moved)
    with monkeypatch.context() as there:
        there.chdir(moved)
        exec(programs(moved)[1], {})
    model = AutoPeftModelForSequenceClassification.from_pretrained(str(moved)).eval()
    np.testing.assert_allclose(
        logits(model, adapted.base.tokenizer), ours(adapted, adapter), atol=1e-5
    )


def test_an_evaluation_of_logits_that_are_not_finite_has_no_accuracy(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    examples = tokenise(tiny_models.labelled(5), model.base, max_length=32)
    for bad in (np.nan, np.inf):
        spoiled = {name: value.copy() for name, value in adapter.items()}
        name = next(t.name for t in model.layout.tensors if t.role == "head")
        spoiled[name].flat[0] = bad
        found = evaluate(model, spoiled, examples)
        assert np.isnan(found["loss"]) and np.isnan(found["accuracy"])
