"""The mean of the last hidden states, against the encoder's own output."""

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModel

from fedpace.core.errors import InputError
from fedpace.lora import evaluate, load_base, save_adapter, tokenise
from fedpace.lora.trainer import objection_to_stacking
from lora import tiny_models

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "llama"])
def test_logits_are_the_head_of_the_mean_over_the_text(folder, architecture):
    base = load_base(folder(architecture), task="classification", num_labels=3, pooling="mean")
    encoder = AutoModel.from_pretrained(folder(architecture)).eval()
    rows = [[7, 8, 9, 20], [5, 30]]
    padded = torch.tensor([rows[0], [*rows[1], 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        logits = base.model(input_ids=padded, attention_mask=mask).logits
        for row, found in zip(rows, logits, strict=True):
            hidden = encoder(input_ids=torch.tensor([row])).last_hidden_state[0]
            expected = base.model.classifier(hidden.mean(0))
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_clients_are_trained_together(folder, architecture):
    model, _ = tiny_models.adapted(folder(architecture), pooling="mean")
    assert objection_to_stacking(model, tiny_models.shards(model)) is None
    assert [t.name for t in model.layout.tensors if t.role == "head"] == [
        "base_model.model.classifier.modules_to_save.default.weight",
        "base_model.model.classifier.modules_to_save.default.bias",
    ]


def test_the_adapter_is_loaded_by_peft(folder, tmp_path):
    model, adapter = tiny_models.adapted(folder("bert"), pooling="mean")
    save_adapter(model, adapter, tmp_path)
    base = load_base(folder("bert"), task="classification", num_labels=3, pooling="mean", seed=9)
    loaded = PeftModel.from_pretrained(base.model, tmp_path).eval()
    ids = torch.tensor([[7, 8, 9, 20], [5, 30, 31, 6]])
    assert torch.equal(loaded(input_ids=ids).logits, model.model(input_ids=ids).logits)


def test_the_head_comes_from_the_seed(folder):
    heads = [
        load_base(
            folder("bert"), task="classification", num_labels=3, pooling="mean", seed=seed
        ).model.classifier.weight.detach().numpy()
        for seed in (0, 0, 1)
    ]  # fmt: skip
    assert np.array_equal(heads[0], heads[1]) and not np.array_equal(heads[0], heads[2])


def test_pairs_are_evaluated(folder):
    model, adapter = tiny_models.adapted(folder("bert"), pooling="mean")
    examples = tokenise(tiny_models.labelled(6, pair=True), model.base, max_length=16)
    assert 0 <= evaluate(model, adapter, examples)["accuracy"] <= 1


def test_a_language_model_has_nothing_to_pool(folder):
    with pytest.raises(InputError, match="pooling"):
        load_base(folder("llama"), task="causal-lm", pooling="mean")
