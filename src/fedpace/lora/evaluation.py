"""Loss and accuracy of a global adapter on held-out examples."""

import math

import torch
from torch.func import functional_call

from fedpace.core.adapter import Adapter
from fedpace.core.errors import InputError
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
    tensors = to_tensors(adapted, adapter)
    limit = max_tokens or default_max_tokens(adapted)
    loss = hits = 0.0
    finite = True
    with merged_into_base(adapted, adapter), torch.inference_mode():
        for rows in group_by_length(examples.lengths, limit):
            batch = collate(examples.take(rows), adapted)
            output = functional_call(adapted.model, tensors, (), batch.inputs, tie_weights=False)
            # A language model may rule tokens out by -inf.
            if examples.task == "classification":
                finite = finite and bool(torch.isfinite(output.logits).all())
            losses, correct = row_scores(output.logits, batch)
            loss += losses.sum().item()
            hits += correct.sum().item()
    if not (finite and math.isfinite(loss)):
        loss = hits = math.nan
    targets = int(examples.targets.sum())
    if examples.task == "causal-lm":
        return {"loss": loss / targets}
    return {"loss": loss / targets, "accuracy": hits / targets}
