"""The sketches, by both trainers, against PEFT models that say the same in another way."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from fedpace.core.adapter import add_components, take_components, zeros
from fedpace.core.messages import draw_components
from fedpace.core.sketch import LEADING, RESIDUAL, SCALED
from fedpace.lora import loop, sketch, stacked, tokenise
from lora import plain_peft, tiny_models
from lora.tiny_models import ADAMW, STEPS, batches_for

pytestmark = pytest.mark.torch

RANK, ALPHA, K = 4, 8.0, 2
TRAINERS = {
    "loop": loop.train_loop,
    "stacked": lambda adapted, clients, training, tasks: stacked.train_stacked(
        adapted, clients, training, 4096, tasks
    ),
}


@pytest.fixture(params=TRAINERS)
def train(request):
    return TRAINERS[request.param]


@pytest.fixture
def bert(folder):
    """Model, adapter, one client's text, its tokens."""
    model, adapter = tiny_models.adapted(folder("bert"), rank=RANK, alpha=ALPHA)
    examples = tiny_models.labelled(10)
    return model, adapter, examples, tokenise(examples, model.base, max_length=32)


@pytest.mark.parametrize("training", [STEPS, ADAMW], ids=["sgd", "adamw"])
def test_a_scaled_sketch_is_a_peft_adapter_of_rank_k(bert, folder, train, training):
    model, adapter, examples, tokens = bert
    training = replace(training, sketch=SCALED)
    (task,) = tiny_models.tasks(adapter, [K])
    (update,) = train(model, [tokens], training, [task])

    components = draw_components(task.seed, 0, 0, RANK, K)
    plain = plain_peft.load(
        folder("bert"), "SEQ_CLS", K, ALPHA, take_components(adapter, model.layout, components)
    )
    expected, losses = plain_peft.train(
        plain,
        [
            plain_peft.texts(folder("bert"), examples, rows)
            for rows in batches_for(task, tokens, training)
        ],
        training.optimizer,
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
    )
    np.testing.assert_array_equal(update.components, components)
    assert update.delta.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(update.delta[name], value, atol=1e-5)
    assert update.train_loss == pytest.approx(np.mean(losses), abs=1e-5)


@pytest.mark.parametrize("frozen", [False, True], ids=["all", "B"])
@pytest.mark.parametrize("k", [1, 3, 4])
def test_the_leading_k_are_a_peft_adapter_of_rank_k_with_the_same_factor(
    bert, folder, train, k, frozen
):
    """And with A frozen, one whose A takes no step."""
    model, adapter, examples, tokens = bert
    trained = ("B", "head") if frozen else ("A", "B", "head")
    training = replace(STEPS, sketch=LEADING, trained=trained)
    (task,) = tiny_models.tasks(adapter, [k])
    (update,) = train(model, [tokens], training, [task])

    first = np.arange(k)
    plain = plain_peft.load(
        folder("bert"), "SEQ_CLS", k, ALPHA * k / RANK,
        take_components(adapter, model.layout, first),
    )  # fmt: skip
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and not (frozen and "lora_A" in name))
    expected, losses = plain_peft.train(
        plain,
        [
            plain_peft.texts(folder("bert"), examples, rows)
            for rows in batches_for(task, tokens, training)
        ],
        training.optimizer,
        lr=training.learning_rate,
    )
    np.testing.assert_array_equal(update.components, first)
    assert update.delta.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(update.delta[name], value, atol=1e-5)
    assert update.train_loss == pytest.approx(np.mean(losses), abs=1e-5)


@pytest.mark.parametrize("training", [STEPS, ADAMW], ids=["sgd", "adamw"])
def test_a_residual_sketch_is_peft_with_other_gradients_dropped(bert, folder, train, training):
    model, adapter, examples, tokens = bert
    training = replace(training, sketch=RESIDUAL, weight_decay=0.0)
    (task,) = tiny_models.tasks(adapter, [K])
    (update,) = train(model, [tokens], training, [task])

    components = draw_components(task.seed, 0, 0, RANK, K)
    expected, losses = plain_peft.train(
        plain_peft.load(folder("bert"), "SEQ_CLS", RANK, ALPHA, adapter),
        [
            plain_peft.texts(folder("bert"), examples, rows)
            for rows in batches_for(task, tokens, training)
        ],
        training.optimizer,
        components=components,
        lr=training.learning_rate,
        weight_decay=0.0,
    )
    for name, value in take_components(expected, model.layout, components).items():
        np.testing.assert_allclose(update.delta[name], value, atol=1e-5)
    assert update.train_loss == pytest.approx(np.mean(losses), abs=1e-5)


@pytest.mark.parametrize("kind", [SCALED, RESIDUAL])
@pytest.mark.parametrize("training", [STEPS, ADAMW], ids=["sgd", "adamw"])
def test_k_rows_of_a_and_the_same_columns_of_b_move_in_every_module(bert, train, kind, training):
    model, adapter, _, tokens = bert
    (task,) = tiny_models.tasks(adapter, [K])
    (update,) = train(model, [tokens], replace(training, sketch=kind), [task])

    roles = [t.role for t in model.layout.tensors]
    assert [roles.count(role) for role in ("A", "B", "head")] == [4, 4, 2]
    moved = {name: value.copy() for name, value in adapter.items()}
    add_components(
        moved, update.delta, model.layout, update.components, lora_weight=1, head_weight=1
    )
    for t in model.layout.tensors:
        changed = moved[t.name] != adapter[t.name]
        if t.role == "head":
            assert changed.all()
            continue
        along = changed.any(axis=1 - t.rank_axis)
        np.testing.assert_array_equal(np.flatnonzero(along), update.components)
        assert len(update.components) == K
    for layer in model.lora_modules.values():
        assert layer.scaling["default"] == ALPHA / RANK


def test_what_was_not_chosen_is_put_back_after_a_step(bert):
    """Components that a client does not train are in its stack; they must not move there."""
    model, adapter, _, tokens = bert
    (task,) = tiny_models.tasks(adapter, [K])
    training = replace(ADAMW, sketch=RESIDUAL, weight_decay=0.5)
    whole = stacked._stack(model, training, [task])
    optimizer = training.make_optimizer(whole.current.values())
    for value in whole.current.values():
        value.grad = torch.ones_like(value)
    optimizer.step()
    stacked._restore_others(model, whole)
    for t in model.layout.tensors:
        if t.rank_axis is not None:
            same = (whole.current[t.name] == whole.start[t.name])[0]
            expected = ~whole.chosen[0].unsqueeze(1 - t.rank_axis).expand_as(same)
            assert torch.equal(same, expected)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("kind", [SCALED, RESIDUAL])
def test_the_forward_pass_is_that_of_b_s_a(bert, folder, train, kind, k):
    """Seen in the loss before the first step; S as columns of B in a PEFT model of rank r."""
    model, adapter, examples, tokens = bert
    training = replace(STEPS, sketch=kind, local_steps=1)
    (task,) = tiny_models.tasks(adapter, [k])
    (update,) = train(model, [tokens], training, [task])

    diagonal = np.ones(RANK, dtype=np.float32)  # residual: the whole adapter
    if kind == SCALED:
        diagonal = np.zeros(RANK, dtype=np.float32)
        diagonal[update.components] = RANK / k
    sketched = {
        t.name: adapter[t.name] * diagonal if t.role == "B" else adapter[t.name]
        for t in model.layout.tensors
    }
    plain = plain_peft.load(folder("bert"), "SEQ_CLS", RANK, ALPHA, sketched)
    (rows,) = batches_for(task, tokens, training)
    with torch.no_grad():
        loss = plain(**plain_peft.texts(folder("bert"), examples, rows)).loss.item()
        other = plain_peft.load(folder("bert"), "SEQ_CLS", RANK, ALPHA, adapter)
        unsketched = other(**plain_peft.texts(folder("bert"), examples, rows)).loss.item()
    assert update.train_loss == pytest.approx(loss, abs=1e-6)
    assert (abs(loss - unsketched) > 1e-3) == (kind == SCALED)


def mean_over_all_sketches(monkeypatch, train_one, layout, k, factor):
    """The mean of the server's view of one client's update, over all index sets."""
    total = zeros(layout.tensors)
    sets = [np.array(c) for c in combinations(range(RANK), k)]
    for components in sets:
        monkeypatch.setattr("fedpace.core.sketch.draw_components", lambda *_, c=components: c)
        add_components(
            total,
            train_one(k).delta,
            layout,
            components,
            lora_weight=factor / len(sets),
            head_weight=1 / len(sets),
        )
    monkeypatch.setattr("fedpace.core.sketch.draw_components", draw_components)
    return total


def assert_same_adapter(left, right, atol):
    for name, value in right.items():
        assert np.abs(value).max() > 10 * atol
        np.testing.assert_allclose(left[name], value, atol=atol)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_residual_sketches_have_the_mean_of_the_full_first_order_update(
    bert, monkeypatch, train, k
):
    model, adapter, _, tokens = bert
    training = replace(STEPS, sketch=RESIDUAL, local_steps=1)

    def train_one(sketch_rank):
        return train(model, [tokens], training, tiny_models.tasks(adapter, [sketch_rank]))[0]

    mean = mean_over_all_sketches(monkeypatch, train_one, model.layout, k, RANK / k)
    assert_same_adapter(mean, train_one(RANK).delta, 1e-6)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_scaled_sketches_have_that_mean_where_the_loss_is_linear_in_the_adapter(
    folder, monkeypatch, train, k
):
    model, adapter = tiny_models.adapted(
        folder("llama"), "causal-lm", rank=RANK, targets=["lm_head"]
    )
    tokens = tiny_models.shards(model)[0]
    training = replace(STEPS, sketch=SCALED, local_steps=1)

    def linear(logits, batch):
        weight = torch.cos(torch.arange(logits.shape[-1]))
        rows = (logits * weight).sum(-1) * batch.inputs["attention_mask"]
        return rows.sum(-1), rows.sum(-1)

    monkeypatch.setattr(loop, "row_scores", linear)
    monkeypatch.setattr(stacked, "row_scores", linear)

    def train_one(sketch_rank):
        return train(model, [tokens], training, tiny_models.tasks(adapter, [sketch_rank]))[0]

    mean = mean_over_all_sketches(monkeypatch, train_one, model.layout, k, 1.0)
    assert_same_adapter(mean, train_one(RANK).delta, 1e-5)


def test_chosen_components_come_first_and_none_is_lost():
    order = sketch.chosen_first(np.array([1, 3]), 5)
    np.testing.assert_array_equal(order, [1, 3, 0, 2, 4])
