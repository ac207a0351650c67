"""Dropout before A: every client has the masks of its own, however it is trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedpace.core.errors import InputError, RunError
from fedpace.core.messages import ClientTask
from fedpace.lora import LocalTraining
from fedpace.lora.dropout import Masks
from fedpace.lora.loop import train_loop
from fedpace.lora.stacked import train_stacked
from lora import tiny_models
from lora.tiny_models import STEPS

pytestmark = pytest.mark.torch

DROPPING = replace(STEPS, dropout=0.4)


@pytest.mark.parametrize(
    ("architecture", "task", "max_tokens"),
    [
        ("bert", "classification", 1), ("bert", "classification", 20),
        ("bert", "classification", 4096), ("gpt2", "causal-lm", 20), ("llama", "causal-lm", 20),
    ],
)  # fmt: skip
def test_a_clients_masks_do_not_depend_on_who_trains_beside_it(
    folder, architecture, task, max_tokens
):
    model, adapter = tiny_models.adapted(folder(architecture), task)
    clients, work = tiny_models.shards(model), tiny_models.tasks(adapter, [4, 2, 1, 3])
    together = train_stacked(model, clients, DROPPING, max_tokens, work)
    alone = train_loop(model, clients, DROPPING, work)
    without = train_loop(model, clients, STEPS, work)
    for a, b, c in zip(together, alone, without, strict=True):
        for name, value in b.delta.items():
            np.testing.assert_allclose(a.delta[name], value, atol=1e-5, err_msg=name)
        assert any(np.abs(c.delta[name] - value).max() > 1e-3 for name, value in b.delta.items())


def test_after_dropping_the_model_drops_nothing(folder):
    model, adapter = tiny_models.adapted(folder("bert"))
    clients, work = tiny_models.shards(model), tiny_models.tasks(adapter, [4])
    first = train_loop(model, clients, STEPS, work)
    train_loop(model, clients, DROPPING, work)
    [again], [update] = train_loop(model, clients, STEPS, work), first
    assert all(np.array_equal(again.delta[name], update.delta[name]) for name in update.delta)


def masks(rate, lengths, step=0):
    made = Masks(rate)
    task = ClientTask(3, 7, {}, 1, seed=5)
    made.now([(task, step, row) for row in range(len(lengths))], np.array(lengths))
    return made


def test_a_share_is_zero_and_the_mean_stays():
    ones = torch.ones(4, 50, 30)
    dropped = masks(0.3, [50] * 4).drop(ones, 0)
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    # 6,000 draws: four deviations are 0.024.
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.024)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.034)


def test_padding_is_left_alone_and_rows_steps_and_modules_differ():
    ones = torch.ones(2, 9, 40)
    dropped = masks(0.5, [6, 9]).drop(ones, 0)
    assert torch.equal(dropped[0, 6:], ones[0, 6:])
    others = [dropped[1], masks(0.5, [6, 9]).drop(ones, 1)[1],
              masks(0.5, [6, 9], step=1).drop(ones, 0)[1]]  # fmt: skip
    others.append(dropped[0])
    assert len({tuple(x[:6].flatten().tolist()) for x in others}) == 4
    # The mask of a row is the same whatever stands beside it, and however far it is padded.
    wider = masks(0.5, [6, 9, 4]).drop(torch.ones(3, 12, 40), 0)
    assert torch.equal(wider[0, :6], dropped[0, :6]) and torch.equal(wider[1, :9], dropped[1])


def test_a_module_that_mixes_rows_is_refused():
    with pytest.raises(RunError, match="dropout.*mixes"):
        masks(0.5, [6, 9, 4]).drop(torch.ones(5, 40), 2)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(InputError, match=r"lora\.dropout"):
        LocalTraining(dropout=rate)
