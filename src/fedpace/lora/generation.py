"""What an adapted language model answers: greedy continuations of held-out prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import GenerationConfig

from fedpace.core.adapter import Adapter
from fedpace.lora.adapter import AdaptedModel, write_adapter
from fedpace.lora.merged import merged_into_base
from fedpace.lora.tokens import IGNORED, Integers, TokenisedExamples


@dataclass(frozen=True, slots=True)
class Question:
    """A held-out example as a question: what the model is shown, and what it should answer."""

    prompt: Integers
    """Token ids up to the last response, shape (P,), P >= 1."""
    expected: Integers
    """Token ids of that response, shape (E,)."""


def questions(examples: TokenisedExamples, count: int) -> list[Question]:
    """Return the first `count` examples that have a whole prompt and a response.

    A prompt that `max_length` cut may have lost its question; an answer to it says nothing.

    Args:
        examples: of a language model, tokenised with the loss on the response alone.
        count: how many at most.
    """
    found = []
    cut = examples.lost[:, 0] > 0
    for ids, labels, part in zip(examples.tokens, examples.labels, cut, strict=True):
        marked = np.flatnonzero(labels != IGNORED)
        if len(found) == count or part or not len(marked):
            continue
        end = marked[-1] + 1
        gaps = np.flatnonzero(labels[:end] == IGNORED)
        start = 0 if not len(gaps) else int(gaps[-1]) + 1
        if start:
            found.append(Question(ids[:start], ids[start:end]))
    return found


def generate(
    adapted: AdaptedModel,
    adapter: Adapter,
    prompts: Sequence[Integers],
    *,
    max_new_tokens: int,
    batch_size: int = 8,
) -> list[str]:
    """Continue prompts greedily, so that the same adapter always answers the same.

    Args:
        adapted: the model; a language model.
        adapter: the global adapter.
        prompts: token ids of each.
        max_new_tokens: longest answer, tokens; it ends before at the end-of-text token.
        batch_size: prompts at once; the answers do not depend on it beyond rounding.

    Returns:
        The answers as text without special tokens, in the order of the prompts.
    """
    write_adapter(adapted, adapter)
    tokenizer = adapted.base.tokenizer
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, use_cache=True,
        eos_token_id=_ends(adapted), pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    # Prompts of like length share a batch: less padding.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = [""] * len(prompts)
    with merged_into_base(adapted, adapter), torch.inference_mode():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            width = max(len(prompts[i]) for i in rows)
            ids = np.full((len(rows), width), tokenizer.pad_token_id, dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, i in enumerate(rows):
                ids[row, width - len(prompts[i]) :] = prompts[i]
                mask[row, width - len(prompts[i]) :] = 1
            output = adapted.model.generate(
                input_ids=torch.from_numpy(ids).to(adapted.device),
                attention_mask=torch.from_numpy(mask).to(adapted.device),
                generation_config=settings,
            )
            texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
            for i, text in zip(rows, texts, strict=True):
                answers[i] = text.strip()
    return answers


def _ends(adapted: AdaptedModel) -> list[int]:
    """Tokens that end an answer: the tokenizer's, and those the model itself states."""
    stated = getattr(adapted.base.model.generation_config, "eos_token_id", None)
    found = [adapted.base.tokenizer.eos_token_id]
    found += stated if isinstance(stated, list) else [stated]
    return sorted({token for token in found if token is not None})
