import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedpace.core.errors import InputError
from fedpace.lora import attach_adapter, load_base, make_trainer, tokenise, trainer
from fedpace.lora.loop import train_loop
from fedpace.lora.trainer import objection_to_stacking
from lora import tiny_models
from lora.tiny_models import ARCHITECTURES, STEPS

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("task", ["classification", "causal-lm"])
def test_common_models_can_be_stacked(folder, architecture, task):
    if task == "causal-lm" and architecture not in tiny_models.DECODERS:
        pytest.skip("an encoder")
    targets = ["q_lin", "v_lin"] if architecture == "distilbert" else None
    model, _ = tiny_models.adapted(folder(architecture), task, targets=targets)
    assert objection_to_stacking(model, tiny_models.shards(model)) is None


def test_the_trial_takes_short_examples_of_two_clients_in_one_pass(folder):
    model, _ = tiny_models.adapted(folder("bert"))
    texts = [tiny_models.labelled(30, seed, low=2, high=30) for seed in (0, 1)]
    clients = [tokenise(each, model.base, max_length=32) for each in texts]
    longest = max(int(each.lengths.max()) for each in clients)
    seen = []
    embedding = model.base.model.get_input_embeddings()
    embedding.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    assert objection_to_stacking(model, clients) is None
    # Each client by itself, then both together.
    assert [rows for rows, _ in seen] == [2, 2, 4]
    assert max(width for _, width in seen) < longest / 2


def assert_loop_is_used(model, adapter, caplog, reason):
    clients = tiny_models.shards(model)
    work = tiny_models.tasks(adapter, [2, 4, 1, 3])
    with caplog.at_level(logging.WARNING):
        updates = make_trainer(model, clients, STEPS)(work)
    assert reason in caplog.text and "one after another" in caplog.text
    for ours, reference in zip(updates, train_loop(model, clients, STEPS, work), strict=True):
        for name, value in reference.delta.items():
            np.testing.assert_array_equal(ours.delta[name], value)


def test_an_adapted_embedding_falls_back_to_the_loop_and_says_so(folder, caplog):
    model, adapter = tiny_models.adapted(folder("bert"), targets=["word_embeddings", "query"])
    assert_loop_is_used(model, adapter, caplog, "word_embeddings is adapted as Embedding")


def test_a_model_that_mixes_the_rows_of_a_batch_falls_back_to_the_loop(folder, caplog):
    model, adapter = tiny_models.adapted(folder("bert"))

    def mix(module, inputs, output):
        return output + output.mean(dim=(0, 1), keepdim=True)

    model.base.model.get_submodule("bert.embeddings").register_forward_hook(mix)
    assert_loop_is_used(model, adapter, caplog, "updates differ by")


class Reordered(nn.Module):
    """Hands its layer the tokens of all rows in another order, as experts do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1]).flip(0)
        return self.inner(flat).flip(0).reshape(*x.shape[:-1], -1)


def test_a_layer_that_gets_tokens_in_another_order_falls_back_to_the_loop(folder, caplog):
    base = load_base(folder("bert"), task="classification", num_labels=3)
    for layer in base.model.bert.encoder.layer:
        layer.attention.self.query = Reordered(layer.attention.self.query)
    # So small an alpha that the head outweighs by far what is wrong.
    model = attach_adapter(base, rank=4, alpha=0.01, target_modules=["query.inner"])
    assert_loop_is_used(model, tiny_models.warm(model), caplog, "updates differ by")


def test_a_forward_pass_that_fails_when_stacked_falls_back_to_the_loop(folder, caplog):
    model, adapter = tiny_models.adapted(folder("bert"))

    def only_one_client(module, inputs, output):
        assert len(output) <= 2, "too many rows"

    model.base.model.get_submodule("bert.embeddings").register_forward_hook(only_one_client)
    clients = tiny_models.shards(model, sizes=(2, 2, 2, 2))
    reason = objection_to_stacking(model, clients)
    assert reason == "AssertionError: too many rows"


def test_no_warning_and_stacked_training_otherwise(folder, caplog):
    model, adapter = tiny_models.adapted(folder("bert"))
    train = make_trainer(model, tiny_models.shards(model), STEPS)
    assert train.together
    assert not caplog.records
    assert list(train([])) == []


def test_the_loop_on_request(folder):
    model, _ = tiny_models.adapted(folder("bert"))
    train = make_trainer(model, tiny_models.shards(model), STEPS, stacked=False)
    assert not train.together


@pytest.mark.parametrize("stacked", [True, False])
def test_more_participants_than_a_part_holds_come_back_in_order(folder, monkeypatch, stacked):
    monkeypatch.setattr(trainer, "MOST_TOGETHER", 3)
    model, adapter = tiny_models.adapted(folder("bert"))
    clients = tiny_models.shards(model)
    work = tiny_models.tasks(adapter, [2, 4, 1, 3])
    train = make_trainer(model, clients, STEPS, stacked=stacked)
    assert [len(part) for part in train.parts(work)] == ([2, 2] if stacked else [1, 1, 1, 1])
    for ours, alone in zip(train(work), train_loop(model, clients, STEPS, work), strict=True):
        for name, value in alone.delta.items():
            np.testing.assert_allclose(ours.delta[name], value, atol=1e-6)


@pytest.mark.parametrize("stacked", [True, False])
def test_clients_may_be_given_by_position_alone(folder, stacked):
    """One of many, as a process that is one client knows them."""
    model, adapter = tiny_models.adapted(folder("bert"))
    shards = tiny_models.shards(model)
    task = tiny_models.tasks(adapter, [2, 2, 2])[2]
    whole = make_trainer(model, shards, STEPS, stacked=stacked)([task])
    own = make_trainer(model, {2: shards[2]}, STEPS, stacked=stacked)([task])
    for name, value in whole[0].delta.items():
        np.testing.assert_allclose(own[0].delta[name], value, atol=1e-6)


def test_what_stacking_saves_is_padding_and_passes(folder):
    model, _ = tiny_models.adapted(folder("bert"))
    tokens = tokenise(tiny_models.labelled(8), model.base, max_length=8)
    short, long = np.arange(5), np.arange(20)

    def of(*lengths):
        ids = tuple(np.resize(i, n) for i, n in zip((short, long), lengths, strict=True))
        return replace(tokens.take([0, 1]), tokens=ids)

    one = replace(STEPS, local_steps=1, batch_size=2)
    # Two clients with rows of 5 and 20: alone 2 (64 + 2 * 20); together in one pass 64 + 4 * 20.
    found = trainer.saved_by_stacking([of(5, 20), of(5, 20)], one, 4096)
    assert found == pytest.approx(1 - 144 / 208)
    # Rows of 500: alone 2 (64 + 1000); if 1000 tokens fill a pass, together the same.
    assert trainer.saved_by_stacking([of(500, 500)] * 2, one, 1000) == 0
    assert not make_trainer(model, [of(500, 500)] * 2, one, max_tokens=1000).together


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("client", [1, 2, -1])
def test_a_client_without_examples_is_named(folder, stacked, client):
    model, adapter = tiny_models.adapted(folder("bert"))
    some = tiny_models.shards(model)[0]
    none = tokenise(tiny_models.labelled(0), model.base, max_length=8)
    train = make_trainer(model, [some, none], STEPS, stacked=stacked)
    (task,) = tiny_models.tasks(adapter, [2])
    task = type(task)(client, 0, adapter, 2, 0)
    with pytest.raises(InputError, match=f"client {client} has no examples"):
        train([task])
    with pytest.raises(InputError, match="no client has any examples"):
        make_trainer(model, [none], STEPS)


def test_training_draws_nothing_from_torch_or_numpy(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train = make_trainer(model, tiny_models.shards(model), STEPS)
    train(tiny_models.tasks(adapter, [2, 3]))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
