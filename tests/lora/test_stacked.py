from dataclasses import replace

import numpy as np
import pytest

from fedpace.core.messages import ClientTask
from fedpace.core.sketch import LEADING, RESIDUAL, SCALED
from fedpace.lora.loop import train_loop
from fedpace.lora.stacked import train_stacked
from lora import tiny_models
from lora.tiny_models import ADAMW, STEPS

pytestmark = pytest.mark.torch

RANKS = [4, 2, 1, 3]
"""One for each of the clients, who have 9, 3, 5 and 1 examples."""
MODELS = [
    ("bert", "classification", None),
    ("bert", "classification", ["query", "output.dense"]),
    ("roberta", "classification", None),
    ("distilbert", "classification", ["q_lin", "v_lin"]),
    ("gpt2", "classification", None),
    ("llama", "classification", None),
    ("gpt2", "causal-lm", None),
    ("llama", "causal-lm", ["q_proj", "v_proj", "down_proj", "lm_head"]),
    ("qwen3", "causal-lm", None),
]


def assert_same_updates(left, right, atol=1e-5):
    assert [u.client for u in left] == [u.client for u in right]
    for ours, reference in zip(left, right, strict=True):
        np.testing.assert_array_equal(ours.components, reference.components)
        assert ours.delta.keys() == reference.delta.keys()
        for name, value in reference.delta.items():
            assert ours.delta[name].dtype == np.float32
            assert np.abs(value).max() > 10 * atol, name
            np.testing.assert_allclose(ours.delta[name], value, atol=atol, err_msg=name)
        assert ours.train_loss == pytest.approx(reference.train_loss, abs=atol)


@pytest.mark.parametrize(("architecture", "task", "targets"), MODELS)
@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL, LEADING])
def test_stacked_equals_loop_on_every_kind_of_model(folder, architecture, task, targets, sketch):
    model, adapter = tiny_models.adapted(folder(architecture), task, targets=targets)
    clients = tiny_models.shards(model)
    work = tiny_models.tasks(adapter, RANKS)
    training = replace(STEPS, sketch=sketch)
    assert_same_updates(
        train_stacked(model, clients, training, 4096, work),
        train_loop(model, clients, training, work),
    )


@pytest.mark.parametrize(
    ("training", "sketch"),
    [(STEPS, SCALED), (STEPS, RESIDUAL), (ADAMW, RESIDUAL), (ADAMW, LEADING)],
)
@pytest.mark.parametrize("max_tokens", [1, 20, 4096])
def test_stacked_equals_loop_however_the_rows_are_grouped(folder, training, sketch, max_tokens):
    model, adapter = tiny_models.adapted(folder("bert"))
    clients = tiny_models.shards(model, pair=True)
    work = tiny_models.tasks(adapter, RANKS)
    training = replace(training, sketch=sketch)
    assert_same_updates(
        train_stacked(model, clients, training, max_tokens, work),
        train_loop(model, clients, training, work),
    )


@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL, LEADING])
def test_stacked_equals_loop_where_a_is_frozen(folder, sketch):
    model, adapter = tiny_models.adapted(folder("bert"))
    clients = tiny_models.shards(model)
    work = tiny_models.tasks(adapter, RANKS)
    training = replace(ADAMW, sketch=sketch, trained=("B", "head"))
    updates = train_stacked(model, clients, training, 4096, work)
    assert_same_updates(updates, train_loop(model, clients, training, work))
    sent = {t.name for t in model.layout.tensors if t.role != "A"}
    assert updates[0].delta.keys() == sent


def test_who_else_joins_and_in_which_order_does_not_matter(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    clients = tiny_models.shards(model)
    work = tiny_models.tasks(adapter, RANKS)
    together = train_stacked(model, clients, STEPS, 4096, work)
    backwards = train_stacked(model, clients, STEPS, 4096, work[::-1])
    alone = [train_stacked(model, clients, STEPS, 4096, [task])[0] for task in work]
    assert_same_updates(together, backwards[::-1], atol=1e-6)
    assert_same_updates(together, alone, atol=1e-6)


def test_tasks_may_start_from_different_adapters_and_rounds(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    clients = tiny_models.shards(model)
    other = tiny_models.warm(model, seed=2)
    work = [ClientTask(0, 1, adapter, 2, 3), ClientTask(0, 2, other, 3, 3)]
    assert_same_updates(
        train_stacked(model, clients, STEPS, 4096, work), train_loop(model, clients, STEPS, work)
    )


def test_a_client_that_diverges_spoils_nobody_else(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    clients = tiny_models.shards(model)
    broken = {name: np.full_like(value, np.nan) for name, value in adapter.items()}
    work = [ClientTask(0, 0, broken, 4, 3), ClientTask(1, 0, adapter, 2, 3)]
    first, second = train_stacked(model, clients, STEPS, 4096, work)
    assert np.isnan(first.train_loss)
    assert_same_updates([second], train_loop(model, clients, STEPS, work[1:]))


def test_afterwards_the_model_is_pefts_own_again(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    clients = tiny_models.shards(model)
    before = train_loop(model, clients, STEPS, tiny_models.tasks(adapter, [2]))
    train_stacked(model, clients, STEPS, 4096, tiny_models.tasks(adapter, RANKS))
    for module in [*model.lora_modules.values(), *model.head_modules.values()]:
        assert "forward" not in vars(module)
    after = train_loop(model, clients, STEPS, tiny_models.tasks(adapter, [2]))
    for name, value in before[0].delta.items():
        np.testing.assert_array_equal(after[0].delta[name], value)


def test_training_twice_gives_the_same_bits_and_leaves_the_given_adapter_alone(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    clients = tiny_models.shards(model)
    copies = {name: value.copy() for name, value in adapter.items()}
    work = tiny_models.tasks(adapter, RANKS)
    once, twice = (train_stacked(model, clients, ADAMW, 64, work) for _ in range(2))
    for ours, again in zip(once, twice, strict=True):
        for name, value in ours.delta.items():
            np.testing.assert_array_equal(again.delta[name], value)
    for name, value in adapter.items():
        np.testing.assert_array_equal(value, copies[name])


def test_stacked_follows_loop_in_half_precision(folder):
    model, adapter = tiny_models.adapted(folder("bert"), dtype="bfloat16")
    clients = tiny_models.shards(model)
    work = tiny_models.tasks(adapter, RANKS)
    training = replace(STEPS, local_steps=1)
    together = train_stacked(model, clients, training, 4096, work)
    for ours, reference in zip(together, train_loop(model, clients, training, work), strict=True):
        for name, value in reference.delta.items():
            assert np.linalg.norm(ours.delta[name] - value) < 0.1 * np.linalg.norm(value)
