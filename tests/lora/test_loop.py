from dataclasses import replace

import numpy as np
import pytest
import torch

from fedpace.core.errors import InputError
from fedpace.core.sketch import LEADING, RESIDUAL, SCALED
from fedpace.lora import LocalTraining, tokenise, train_client
from lora import plain_peft, tiny_models
from lora.tiny_models import ADAMW, STEPS, batches_for

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("training", [STEPS, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL, LEADING])
def test_one_client_at_full_rank_is_plain_peft_training(folder, training, sketch, pair):
    training = replace(training, sketch=sketch)
    model, adapter = tiny_models.adapted(folder("bert"))
    examples = tiny_models.labelled(10, pair=pair)
    (task,) = tiny_models.tasks(adapter, [4])
    update = train_client(model, tokenise(examples, model.base, max_length=32), training, task)

    plain = plain_peft.load(folder("bert"), "SEQ_CLS", 4, 8, adapter)
    expected, losses = plain_peft.train(
        plain,
        [
            plain_peft.texts(folder("bert"), examples, rows)
            for rows in batches_for(task, examples, training)
        ],
        training.optimizer,
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
    )
    assert update.delta.keys() == expected.keys()
    for name, value in expected.items():
        assert np.abs(value).max() > 1e-4
        np.testing.assert_allclose(update.delta[name], value, atol=1e-6)
    assert update.train_loss == pytest.approx(np.mean(losses), abs=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_language_model_at_full_rank_is_plain_peft_training(folder, architecture):
    model, adapter = tiny_models.adapted(folder(architecture), "causal-lm")
    examples = tokenise(tiny_models.instructions(6), model.base, max_length=32)
    training = replace(STEPS, batch_size=1)  # so that no padding is needed here
    (task,) = tiny_models.tasks(adapter, [4])
    update = train_client(model, examples, training, task)

    plain = plain_peft.load(folder(architecture), "CAUSAL_LM", 4, 8, adapter)
    batches = [
        {
            "input_ids": torch.from_numpy(examples.tokens[row])[None],
            "labels": torch.from_numpy(examples.labels[row])[None],
        }
        for (row,) in batches_for(task, examples, training)
    ]
    expected, losses = plain_peft.train(plain, batches, "sgd", lr=training.learning_rate)
    assert update.delta.keys() == expected.keys()
    for name, value in expected.items():
        assert np.abs(value).max() > 1e-5
        np.testing.assert_allclose(update.delta[name], value, atol=1e-6)
    assert update.train_loss == pytest.approx(np.mean(losses), abs=1e-6)


def test_a_task_names_its_own_client_and_round(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    (task,) = tiny_models.tasks(adapter, [2], round_index=7)
    update = train_client(model, tiny_models.shards(model)[0], STEPS, task)
    assert (update.client, update.round_index) == (0, 7)


@pytest.mark.parametrize("sketch_rank", [0, 5])
def test_a_sketch_rank_outside_the_adapter_is_refused(folder, sketch_rank):
    model, adapter = tiny_models.adapted(folder("bert"))
    (task,) = tiny_models.tasks(adapter, [sketch_rank])
    with pytest.raises(InputError, match=f"client 0 has sketch rank {sketch_rank}"):
        train_client(model, tiny_models.shards(model)[0], STEPS, task)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"local_steps": 0}, "local_steps is 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"weight_decay": -1.0}, "weight_decay -1.0"),
        ({"optimizer": "lion"}, 'optimizer is "lion"'),
        ({"sketch": "random"}, 'sketch is "random"'),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        LocalTraining(**wrong)
