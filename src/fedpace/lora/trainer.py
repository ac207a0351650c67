"""The trainer of a run: stacked where that gives what the loop gives, else the loop."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from fedpace.core.adapter import squared_norms
from fedpace.core.errors import InputError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.rng import rng_for
from fedpace.core.sketch import SCALED
from fedpace.federation.engine import Train
from fedpace.lora.adapter import ADAPTER_NAME, AdaptedModel
from fedpace.lora.grouping import default_max_tokens
from fedpace.lora.local_training import ClientExamples, LocalTraining
from fedpace.lora.loop import Stepped, train_loop
from fedpace.lora.stacked import train_stacked

_log = logging.getLogger(__name__)


def make_trainer(
    adapted: AdaptedModel,
    clients: ClientExamples,
    training: LocalTraining,
    *,
    stacked: bool = True,
    max_tokens: int | None = None,
    stepped: Stepped = lambda steps: None,
) -> Train:
    """Make the callable that trains the participants of a round.

    Args:
        adapted: the model.
        clients: each client's examples, by its position in the population.
        training: what a client does in a round.
        stacked: train the participants together. That is first tried against the loop on the
            model at hand; where the two do not agree, the loop is used and a warning logged.
        max_tokens: most tokens, padding included, that go through the model at once when
            stacked; with the width and depth of the model it bounds the memory. By default 1024
            on a processor, 16384 on an accelerator.
        stepped: called after each step of a client that is trained alone.

    Returns:
        tasks -> updates, in the order of the tasks.

    Raises:
        InputError: no client has any examples.
    """
    if stacked:
        limit = max_tokens or default_max_tokens(adapted.device)
        objection = objection_to_stacking(adapted, clients)
        if objection is None:
            return partial(train_stacked, adapted, clients, training, limit)
        _log.warning(
            "clients are trained one after another: %s cannot train them together (%s)",
            adapted.base.name,
            objection,
        )
    return partial(train_loop, adapted, clients, training, stepped=stepped)


def objection_to_stacking(adapted: AdaptedModel, clients: ClientExamples) -> str | None:
    """Say why clients of this model cannot be trained together; None where they can.

    Two small updates from an adapter with random B are computed both ways. A model that mixes
    the rows of a batch, or hands a layer something else than its rows, gives itself away.
    """
    for name, layer in adapted.lora_modules.items():
        if not isinstance(layer.lora_A[ADAPTER_NAME] if layer.lora_A else None, nn.Linear):
            return f"{name} is adapted as {type(layer).__name__}"
    tasks = _probe_tasks(adapted, clients)
    probe = LocalTraining(
        local_steps=1, batch_size=2, learning_rate=1.0, optimizer="sgd", sketch=SCALED
    )
    reference = train_loop(adapted, clients, probe, tasks)
    try:
        updates = train_stacked(adapted, clients, probe, 4096, tasks)
    except Exception as error:  # other people's forward passes may raise anything
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    tolerance = 1e-3 if adapted.base.model.dtype == torch.float32 else 0.2
    difference = _relative_difference(adapted, updates, reference)
    if not difference <= tolerance:
        return f"updates differ by {difference:.1e}, relative, from those of the loop"
    return None


def _probe_tasks(adapted: AdaptedModel, clients: ClientExamples) -> list[ClientTask]:
    positions = clients.keys() if isinstance(clients, Mapping) else range(len(clients))
    found = [n for n in positions if len(clients[n])]
    if not found:
        raise InputError("no client has any examples to train on")
    rng = rng_for(0, "simulation", 0)
    adapter = dict(adapted.initial)
    for t in adapted.layout.tensors:
        if t.role == "B":
            adapter[t.name] = rng.normal(0.0, 0.02, t.shape).astype(np.float32)
    rank = adapted.layout.rank
    return [
        ClientTask(client, 0, adapter, sketch_rank, seed=0)
        for client, sketch_rank in ((found[0], rank), (found[-1], max(1, rank // 2)))
    ]


def _relative_difference(
    adapted: AdaptedModel, updates: Sequence[ClientUpdate], reference: Sequence[ClientUpdate]
) -> float:
    """The larger of those of the LoRA part and of the head, which would drown the former."""
    apart, whole = np.zeros(2), np.zeros(2)
    for ours, theirs in zip(updates, reference, strict=True):
        difference = {name: ours.delta[name] - value for name, value in theirs.delta.items()}
        apart += squared_norms(difference, adapted.layout)
        whole += squared_norms(theirs.delta, adapted.layout)
    # Without a head both its norms are 0.
    return float(np.sqrt(np.max(apart / np.where(whole > 0, whole, 1.0))))
