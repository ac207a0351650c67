"""Each architecture of docs/models.md: adapted, trained, saved, loaded by plain PEFT."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerFast

from fedpace.core.errors import InputError
from fedpace.lora import load_base, make_trainer, save_adapter
from fedpace.lora.adapter import write_adapter
from fedpace.lora.trainer import objection_to_stacking
from lora import tiny_models
from lora.architectures import CAUSAL, CLASSIFIERS
from lora.plain_peft import CLASSES

pytestmark = pytest.mark.torch
ALL = {**CAUSAL, **CLASSIFIERS}
ONE_BY_ONE = {"deberta-v2"}
"""Their clients are trained one after another."""
KEEPS_ALL = {"albert"}
"""transformers marks no layers of theirs for gradient checkpointing."""
QUICK = {"qwen3_moe", "mamba", "modernbert"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    def get(architecture):
        folder = tmp_path_factory.mktemp(architecture)
        kind, config, options = ALL[architecture]
        tiny_models.write_model(
            kind, config(**options), folder, decoder=architecture in CAUSAL, end="</s>"
        )
        return str(folder)

    return get


def two_rounds(model, adapter, stacked, training=tiny_models.STEPS):
    """The adapter after two rounds of plain averaging, and the last updates."""
    clients = tiny_models.shards(model)
    train = make_trainer(model, clients, training, stacked=stacked)
    for round_index in range(2):
        updates = train(tiny_models.tasks(adapter, [4, 4, 4, 4], round_index=round_index))
        adapter = {
            name: (x + np.mean([u.delta[name] for u in updates], axis=0)).astype(np.float32)
            for name, x in adapter.items()
        }
    return adapter, updates


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(a, marks=() if a in QUICK else (pytest.mark.slow,)) for a in ALL],
)
def test_an_architecture_is_adapted_trained_and_loaded_by_peft(
    written, tmp_path, monkeypatch, architecture
):
    # The automatic class makes Qwen2's own tokenizer, whose vocabulary our list of words is not.
    monkeypatch.setattr("fedpace.lora.model.AutoTokenizer", PreTrainedTokenizerFast)
    source = written(architecture)
    task = "causal-lm" if architecture in CAUSAL else "classification"
    model, adapter = tiny_models.adapted(source, task)
    objection = objection_to_stacking(model, tiny_models.shards(model))
    assert (objection is not None) == (architecture in ONE_BY_ONE), objection

    loop, updates = two_rounds(model, adapter, stacked=False)
    stacked, _ = two_rounds(model, adapter, stacked=True)
    recomputing = replace(tiny_models.STEPS, gradient_checkpointing=True)
    if architecture in KEEPS_ALL:
        with pytest.raises(InputError, match=f"gradient_checkpointing.*{architecture}"):
            make_trainer(model, tiny_models.shards(model), recomputing)
        again = loop
    else:
        again, _ = two_rounds(model, adapter, stacked=False, training=recomputing)
    for t in model.layout.tensors:
        # An adapter that the forward pass does not read would stay where it is.
        assert any(np.abs(u.delta[t.name]).max() > 0 for u in updates), f"{t.name} is not used"
        np.testing.assert_allclose(stacked[t.name], loop[t.name], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(again[t.name], loop[t.name], rtol=1e-4, atol=1e-5)

    save_adapter(model, loop, tmp_path)
    write_adapter(model, loop)
    options = {"num_labels": 3} if task == "classification" else {}
    kind = CLASSES["SEQ_CLS" if task == "classification" else "CAUSAL_LM"]
    plain = kind.from_pretrained(source, **options)
    plain.config.pad_token_id = model.base.model.config.pad_token_id
    loaded = PeftModel.from_pretrained(plain, tmp_path).eval()
    ids = {"input_ids": torch.tensor([[7, 8, 9, 4], [5, 30, 31, 4]])}
    with torch.no_grad():
        torch.testing.assert_close(loaded(**ids).logits, model.model(**ids).logits)


@pytest.mark.parametrize("architecture", ["bart", "t5"])
def test_an_encoder_decoder_is_no_language_model_here(written, architecture):
    with pytest.raises(InputError, match="encoder-decoder|both directions"):
        load_base(written(architecture), task="causal-lm")


def test_the_page_lists_every_architecture():
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")
    for architecture in ALL:
        assert f"| `{architecture}` |" in page
