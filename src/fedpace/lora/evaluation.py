"""Loss and accuracy of a global adapter on held-out examples."""

import math

import numpy as np
import torch
from torch.func import functional_call

from fedpace.core.adapter import Adapter
from fedpace.core.errors import InputError
from fedpace.core.profile import Floats
from fedpace.lora.adapter import AdaptedModel, to_tensors
from fedpace.lora.grouping import group_by_length
from fedpace.lora.memory import default_max_tokens
from fedpace.lora.merged import merged_into_base
from fedpace.lora.tasks import collate, row_scores
from fedpace.lora.tokens import TokenisedExamples


def evaluate(
    adapted: AdaptedModel,
    adapter: Adapter,
    examples: TokenisedExamples,
    *,
    max_tokens: int | None = None,
) -> dict[str, float]:
    """Compute the mean loss and, for classification, the accuracy.

    The mean is over examples, or over the labelled tokens of all examples of a language model.

    Args:
        adapted: the model.
        adapter: the global adapter.
        examples: held-out examples.
        max_tokens: most tokens, padding included, that go through the model at once; by default
            what `default_max_tokens` says.

    Returns:
        {"loss": ..., "accuracy": ...} for classification, {"loss": ...} for causal LM; NaN where a
        classifier's logits or a loss are not finite: of such logits the largest says nothing.
    """
    if not len(examples):
        raise InputError("there are no held-out examples to evaluate on")
    losses, hits = score_rows(adapted, adapter, examples, max_tokens=max_tokens)
    loss, targets = float(losses.sum()), int(examples.targets.sum())
    if not math.isfinite(loss):
        loss = math.nan
    if examples.task == "causal-lm":
        return {"loss": loss / targets}
    accuracy = math.nan if math.isnan(loss) else float(hits.sum()) / targets
    return {"loss": loss / targets, "accuracy": accuracy}


def score_rows(
    adapted: AdaptedModel,
    adapter: Adapter,
    examples: TokenisedExamples,
    *,
    max_tokens: int | None = None,
) -> tuple[Floats, Floats]:
    """Compute each example's loss, and how many of its targets are the model's first choice.

    Args:
        adapted: the model.
        adapter: the global adapter.
        examples: M examples.
        max_tokens: as in `evaluate`.

    Returns:
        Negative log-likelihood of its targets, nats, and hits, both of shape (M,); the loss is NaN
        where a classifier's logits are not finite.
    """
    tensors = to_tensors(adapted, adapter)
    limit = max_tokens or default_max_tokens(adapted)
    losses, hits = np.zeros((2, len(examples)))
    with merged_into_base(adapted, adapter), torch.inference_mode():
        for rows in group_by_length(examples.lengths, limit):
            batch = collate(examples.take(rows), adapted)
            output = functional_call(adapted.model, tensors, (), batch.inputs, tie_weights=False)
            loss, correct = row_scores(output.logits, batch)
            # A language model may rule tokens out by -inf.
            if examples.task == "classification":
                loss = loss.where(torch.isfinite(output.logits).all(-1), math.nan)
            losses[rows], hits[rows] = loss.cpu().numpy(), correct.cpu().numpy()
    return losses, hits
