"""The trainer of a run: stacked where that gives what the loop gives and pays, else the loop."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from fedpace.core.adapter import squared_norms
from fedpace.core.errors import InputError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.rng import rng_for
from fedpace.core.sketch import SCALED
from fedpace.lora.adapter import ADAPTER_NAME, AdaptedModel
from fedpace.lora.checkpointing import layers_to_recompute
from fedpace.lora.grouping import cost, group_by_length
from fedpace.lora.local_training import ClientExamples, LocalTraining
from fedpace.lora.loop import Stepped, train_loop
from fedpace.lora.memory import default_max_tokens
from fedpace.lora.stacked import train_stacked
from fedpace.lora.tokens import TokenisedExamples

_log = logging.getLogger(__name__)

_LEAST_SAVED = 0.1
"""Part of the loop's work that stacking must save on a processor; it takes more memory."""
_AT_ONCE = 2**30
"""Tokens: rows that never share a pass cannot show that a model mixes them."""
MOST_TOGETHER = 8
"""Clients in one part of a round. What a pass costs beyond its tokens is shared by then, and parts
of a round can be trained in several processes."""


@dataclass(frozen=True, slots=True, eq=False)
class Trainer:
    """Trains the participants of a round: tasks -> updates, in the order of the tasks.

    It does so part by part, and no part depends on another, nor on where it is trained.
    """

    adapted: AdaptedModel
    clients: ClientExamples
    training: LocalTraining
    together: bool
    """Stacked, else one after another."""
    max_tokens: int
    """Most tokens, padding included, that go through the model at once when stacked."""
    stepped: Stepped = lambda steps: None
    """Called after each step of a client that is trained alone."""

    def __call__(self, tasks: Sequence[ClientTask]) -> list[ClientUpdate]:
        """Train all parts of a round."""
        return [update for part in self.parts(tasks) for update in self.train_part(part)]

    def parts(self, tasks: Sequence[ClientTask]) -> list[Sequence[ClientTask]]:
        """Divide a round: as evenly as can be where stacked, else one task a part."""
        count = -(-len(tasks) // MOST_TOGETHER) if self.together else len(tasks)
        ends = np.linspace(0, len(tasks), count + 1).round().astype(int)
        return [tasks[a:b] for a, b in pairwise(ends)]

    def train_part(self, tasks: Sequence[ClientTask]) -> list[ClientUpdate]:
        """Train one part."""
        if self.together:
            return train_stacked(self.adapted, self.clients, self.training, self.max_tokens, tasks)
        return train_loop(self.adapted, self.clients, self.training, tasks, stepped=self.stepped)


def make_trainer(
    adapted: AdaptedModel,
    clients: ClientExamples,
    training: LocalTraining,
    *,
    stacked: bool = True,
    max_tokens: int | None = None,
    stepped: Stepped = lambda steps: None,
) -> Trainer:
    """Make the callable that trains the participants of a round.

    Args:
        adapted: the model.
        clients: each client's examples, by its position in the population.
        training: what a client does in a round.
        stacked: train the participants together where that saves a tenth of the work, by the
            lengths of the examples (`saved_by_stacking`). It is first tried against the loop on the
            model at hand; where the two do not agree, the loop is used. Either is logged.
        max_tokens: most tokens, padding included, that go through the model at once when
            stacked; it bounds the memory. By default what `default_max_tokens` says.
        stepped: called after each step of a client that is trained alone.

    Returns:
        tasks -> updates, in the order of the tasks.

    Raises:
        InputError: no client has any examples, or the model has no layers that gradient
            checkpointing could compute again.
    """
    if training.gradient_checkpointing:
        layers_to_recompute(adapted)
    limit = max_tokens or default_max_tokens(adapted)
    saved = saved_by_stacking(clients, training, limit) if stacked else 0.0
    if stacked and saved < _LEAST_SAVED and adapted.device.type == "cpu":
        _log.info(
            "clients are trained one after another: together would save %.0f %% of the work",
            100 * max(saved, 0.0),
        )
        stacked = False
    if stacked:
        objection = objection_to_stacking(adapted, clients)
        if objection is not None:
            _log.warning(
                "clients are trained one after another: %s cannot train them together (%s)",
                adapted.base.name,
                objection,
            )
            stacked = False
    return Trainer(adapted, clients, training, stacked, limit, stepped)


def saved_by_stacking(clients: ClientExamples, training: LocalTraining, max_tokens: int) -> float:
    """Return which part of the loop's work a stacked pass saves: padding, and passes.

    Counted for the mini-batches of a few clients, in tokens and what a pass costs beside them, so
    it is the same on every machine. Where mini-batches fill a pass, or lengths are equal, little
    is saved.

    Raises:
        InputError: no client has any examples.
    """
    some = _with_examples(clients)
    chosen = np.unique(np.linspace(0, len(some) - 1, MOST_TOGETHER).round().astype(int))
    alone = together = 0.0
    drawn = []
    for n in (some[i] for i in chosen):
        batches = training.draw_batches(ClientTask(n, 0, {}, 1, seed=0), clients[n])
        drawn.append([clients[n].lengths[rows] for rows in batches])
    for step in zip(*drawn, strict=True):
        alone += sum(cost(lengths, [np.arange(len(lengths))]) for lengths in step)
        lengths = np.concatenate(step)
        together += cost(lengths, group_by_length(lengths, max_tokens))
    return 1 - together / alone


def _with_examples(clients: ClientExamples) -> list[int]:
    positions = clients.keys() if isinstance(clients, Mapping) else range(len(clients))
    found = [n for n in positions if len(clients[n])]
    if not found:
        raise InputError("no client has any examples to train on")
    return found


def objection_to_stacking(adapted: AdaptedModel, clients: ClientExamples) -> str | None:
    """Say why clients of this model cannot be trained together; None where they can.

    Two small updates from an adapter with random B are computed both ways, on short examples of
    like lengths: they must share a pass, whatever it takes. A model that mixes the rows of a batch,
    or hands a layer something else than its rows, gives itself away.
    """
    for name, layer in adapted.lora_modules.items():
        if not isinstance(layer.lora_A[ADAPTER_NAME] if layer.lora_A else None, nn.Linear):
            return f"{name} is adapted as {type(layer).__name__}"
    tasks = _probe_tasks(adapted, clients)
    length = max(int(clients[task.client].lengths.min()) for task in tasks)
    short = {task.client: _near(clients[task.client], length) for task in tasks}
    probe = LocalTraining(
        local_steps=1, batch_size=2, learning_rate=1.0, optimizer="sgd", sketch=SCALED
    )
    reference = train_loop(adapted, short, probe, tasks)
    try:
        updates = train_stacked(adapted, short, probe, _AT_ONCE, tasks)
    except Exception as error:  # other people's forward passes may raise anything
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    tolerance = 1e-3 if adapted.base.model.dtype == torch.float32 else 0.2
    difference = _relative_difference(adapted, updates, reference)
    if not difference <= tolerance:
        return f"updates differ by {difference:.1e}, relative, from those of the loop"
    return None


def _near(examples: TokenisedExamples, length: int) -> TokenisedExamples:
    return examples.take(np.argsort(np.abs(examples.lengths - length), kind="stable")[:2])


def _probe_tasks(adapted: AdaptedModel, clients: ClientExamples) -> list[ClientTask]:
    found = _with_examples(clients)
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
