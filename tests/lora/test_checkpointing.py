"""Gradient checkpointing: the updates of training without it, from less that is kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from fedpace.core.errors import InputError
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.lora import make_trainer
from fedpace.lora.checkpointing import layers_to_recompute
from fedpace.lora.loop import train_loop
from fedpace.lora.stacked import train_stacked
from lora import tiny_models
from lora.tiny_models import STEPS

pytestmark = pytest.mark.torch
RANKS = [4, 2, 1, 3]
MODELS = [("bert", "classification"), ("gpt2", "causal-lm"), ("llama", "causal-lm")]


def train(way, model, training, work):
    clients = tiny_models.shards(model)
    if way == "loop":
        return train_loop(model, clients, training, work)
    return train_stacked(model, clients, training, 64, work)


@pytest.mark.parametrize("way", ["loop", "stacked"])
@pytest.mark.parametrize(("architecture", "task"), MODELS)
@pytest.mark.parametrize(("dropout", "sketch"), [(0.0, SCALED), (0.4, RESIDUAL)])
def test_the_updates_are_those_of_training_without_it(
    folder, way, architecture, task, dropout, sketch
):
    model, adapter = tiny_models.adapted(folder(architecture), task)
    work = tiny_models.tasks(adapter, RANKS)
    plain = replace(STEPS, dropout=dropout, sketch=sketch)
    expected = train(way, model, plain, work)
    found = train(way, model, replace(plain, gradient_checkpointing=True), work)
    for ours, reference in zip(found, expected, strict=True):
        assert ours.delta.keys() == reference.delta.keys()
        for name, value in reference.delta.items():
            assert np.abs(value).max() > 1e-5, name
            np.testing.assert_allclose(ours.delta[name], value, atol=1e-6, err_msg=name)
        assert ours.train_loss == pytest.approx(reference.train_loss, abs=1e-6)


def kept(way, model, training, work):
    """Bytes that autograd holds at the most, outside what a layer computes again."""
    held, most = {}, [0]
    own = {p.untyped_storage().data_ptr() for p in model.model.parameters()}

    class Kept:
        def __init__(self, tensor):
            self.tensor, storage = tensor, tensor.untyped_storage()
            self.key = storage.data_ptr()
            if self.key not in own:
                held.setdefault(self.key, [0, storage.nbytes()])[0] += 1
                most[0] = max(most[0], sum(size for _, size in held.values()))

        def __del__(self):
            if self.key in held:
                held[self.key][0] -= 1
                if not held[self.key][0]:
                    del held[self.key]

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda each: each.tensor):
        train(way, model, training, work)
    return most[0]


@pytest.mark.parametrize("way", ["loop", "stacked"])
def test_less_is_kept_for_the_backward_pass(folder, way):
    model, adapter = tiny_models.adapted(folder("bert"))
    work = tiny_models.tasks(adapter, RANKS)
    plain = kept(way, model, STEPS, work)
    assert kept(way, model, replace(STEPS, gradient_checkpointing=True), work) < plain / 2


def test_afterwards_layers_keep_what_they_compute_again(folder):
    model, adapter = tiny_models.adapted(folder("gpt2"), "causal-lm")
    layers = layers_to_recompute(model)
    assert len(layers) == 2 and all(isinstance(x, GradientCheckpointingLayer) for x in layers)
    hooked = layers[0].forward = layers[0].forward  # as who moves layers between devices does
    for way in ("loop", "stacked"):
        train(
            way, model, replace(STEPS, gradient_checkpointing=True), tiny_models.tasks(adapter, [2])
        )
    assert vars(layers[0])["forward"] is hooked and "forward" not in vars(layers[1])


def test_a_model_without_such_layers_is_refused_in_a_line(folder, monkeypatch):
    class Nothing:
        pass

    monkeypatch.setattr("fedpace.lora.checkpointing.GradientCheckpointingLayer", Nothing)
    model, _ = tiny_models.adapted(folder("bert"))
    training = replace(STEPS, gradient_checkpointing=True)
    with pytest.raises(InputError, match=r"gradient_checkpointing.*\(bert\) has no layers") as told:
        make_trainer(model, tiny_models.shards(model), training)
    assert "\n" not in str(told.value)
