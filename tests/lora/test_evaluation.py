import numpy as np
import pytest
import torch

from fedpace.core.errors import InputError
from fedpace.lora import evaluate, tokenise
from lora import plain_peft, tiny_models

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("max_tokens", [1, 40, 4096])
def test_accuracy_and_loss_are_those_of_peft_example_by_example(folder, max_tokens):
    model, adapter = tiny_models.adapted(folder("bert"))
    examples = tiny_models.labelled(25)
    found = evaluate(
        model, adapter, tokenise(examples, model.base, max_length=32), max_tokens=max_tokens
    )

    plain = plain_peft.load(folder("bert"), "SEQ_CLS", 4, 8, adapter)
    losses, hits = [], []
    with torch.no_grad():
        for row in range(25):
            output = plain(**plain_peft.texts(folder("bert"), examples, [row]))
            losses.append(output.loss.item())
            hits.append(output.logits.argmax().item() == examples.label[row])
    assert found.keys() == {"loss", "accuracy"}
    assert found["loss"] == pytest.approx(np.mean(losses), abs=1e-6)
    assert found["accuracy"] == np.mean(hits)
    assert 0 < np.mean(hits) < 1


@pytest.mark.parametrize("max_tokens", [1, 4096])
def test_the_loss_of_a_language_model_counts_tokens_not_examples(folder, max_tokens):
    model, adapter = tiny_models.adapted(folder("llama"), "causal-lm")
    examples = tokenise(tiny_models.instructions(12), model.base, max_length=32)
    plain = plain_peft.load(folder("llama"), "CAUSAL_LM", 4, 8, adapter)
    losses, tokens = [], []
    with torch.no_grad():
        for ids, labels in zip(examples.tokens, examples.labels, strict=True):
            batch = {"input_ids": torch.tensor(ids)[None], "labels": torch.tensor(labels)[None]}
            losses.append(plain(**batch).loss.item())
            tokens.append(int((labels >= 0).sum()))
    expected = np.average(losses, weights=tokens)
    assert abs(expected - np.mean(losses)) > 1e-4
    found = evaluate(model, adapter, examples, max_tokens=max_tokens)
    assert found == {"loss": pytest.approx(expected, abs=1e-6)}


def test_nothing_held_out_is_an_error(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    nothing = tokenise(tiny_models.labelled(0), model.base, max_length=32)
    with pytest.raises(InputError, match="no held-out examples"):
        evaluate(model, adapter, nothing)
