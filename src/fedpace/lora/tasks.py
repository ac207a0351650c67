"""Text tasks: token ids into padded batches, logits into losses.

Padding is to the right and to the longest row of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from fedpace.core.rng import rng_for
from fedpace.lora.adapter import AdaptedModel
from fedpace.lora.model import Task
from fedpace.lora.tokens import IGNORED, Integers, TokenisedExamples


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Padded rows on the model's device."""

    task: Task
    inputs: dict[str, torch.Tensor]
    """Keyword arguments of the model; each of shape (rows, longest)."""
    labels: torch.Tensor
    """Shape (rows,) for classification, (rows, longest) for causal LM."""


def concatenate(parts: Sequence[TokenisedExamples]) -> TokenisedExamples:
    """Put examples of several clients into one, in the order of the clients."""
    segments = None
    if parts[0].segments is not None:
        segments = tuple(ids for part in parts for ids in part.segments or ())
    return TokenisedExamples(
        parts[0].task,
        tuple(ids for part in parts for ids in part.tokens),
        tuple(ids for part in parts for ids in part.labels),
        segments,
        np.concatenate([np.concatenate([part.whole, part.lost], axis=1) for part in parts]),
    )


def collate(examples: TokenisedExamples, adapted: AdaptedModel) -> Batch:
    """Pad examples to their longest and put them on the model's device."""
    pad_id, device = adapted.base.tokenizer.pad_token_id, adapted.device
    lengths = examples.lengths
    inputs = {
        "input_ids": _padded(examples.tokens, pad_id),
        "attention_mask": (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64),
    }
    if examples.segments is not None:
        inputs["token_type_ids"] = _padded(examples.segments, 0)
    if examples.task == "classification":
        labels = np.concatenate(examples.labels)
    else:
        labels = _padded(examples.labels, IGNORED)
    on_device = {name: torch.from_numpy(value).to(device) for name, value in inputs.items()}
    return Batch(examples.task, on_device, torch.from_numpy(labels).to(device))


def _padded(rows: Sequence[Integers], value: int) -> Integers:
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded


def row_scores(logits: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each row's cross-entropy, summed over its targets, and its hits; shapes (rows,)."""
    if batch.task == "classification":
        labels, rows = batch.labels, torch.arange(len(batch.labels), device=logits.device)
    else:
        # Position t predicts token t + 1. Taking the labelled positions first keeps the
        # float32 copy of the logits, the largest tensor there is, as small as it can be.
        wanted = batch.labels[:, 1:] != IGNORED
        rows = wanted.nonzero()[:, 0]
        logits, labels = logits[:, :-1][wanted], batch.labels[:, 1:][wanted]
    logits = logits.float()
    zero = logits.new_zeros(len(batch.labels))
    losses = functional.cross_entropy(logits, labels, reduction="none")
    hits = (logits.detach().argmax(-1) == labels).float()
    return zero.index_add(0, rows, losses), zero.index_add(0, rows, hits)


def draw_batches(
    seed: int, round_index: int, client: int, *, examples: int, batch_size: int, count: int
) -> list[Integers]:
    """Draw a client's mini-batches of one round.

    Batches are cut from a permutation of the examples, a new one when fewer than a batch are
    left; so no batch holds an example twice. A client with fewer examples than a batch uses all.

    Returns:
        `count` arrays of min(batch_size, examples) rows.
    """
    rng = rng_for(seed, "batches", round_index, client)
    size = min(batch_size, examples)
    batches: list[Integers] = []
    while len(batches) < count:
        order = rng.permutation(examples)
        starts = range(0, examples - size + 1, size)
        batches += [order[start : start + size] for start in starts]
    return batches[:count]
