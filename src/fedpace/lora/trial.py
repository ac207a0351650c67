"""Whether a loaded model, its tokenizer and its head do what they must, tried before they are used.

What can be wrong with a model that loads: a tokenizer without words, words that the embedding does
not know, weights that give no numbers. Each ends in one line here, before anything is written.
"""

from typing import Any

import numpy as np
import torch

from fedpace.core.errors import InputError
from fedpace.lora.adapter import AdaptedModel
from fedpace.lora.cuts import Cuts, cuts_of, refuse_spoiled
from fedpace.lora.tasks import collate, row_scores
from fedpace.lora.tokens import TokenisedExamples, longest

MOST_UNKNOWN = 0.5
"""A tokenizer that knows fewer of the tokens belongs to other text."""


def tried(adapted: AdaptedModel, examples: TokenisedExamples, max_length: int) -> Cuts:
    """Try a model on all that it is to be trained on, and see what was cut of it.

    Args:
        adapted: the model with its adapter.
        examples: at least one.
        max_length: what they were cut to.

    Raises:
        InputError: as `try_out` and `cuts.refuse_spoiled`.
    """
    try_out(adapted, examples)
    cuts = cuts_of(examples, max_length)
    refuse_spoiled(cuts, longest(adapted.base))
    return cuts


def try_out(adapted: AdaptedModel, examples: TokenisedExamples) -> None:
    """Try a model on its real examples: the ids of all, and one pass with the longest and first.

    Args:
        adapted: the model with its adapter.
        examples: all that it is to be trained on; at least one.

    Raises:
        InputError: most tokens are unknown, an id lies beyond the embedding, the model cannot be
            called with them, or its loss is no finite number.
    """
    if not len(examples):
        return
    _refuse_unknown(adapted, examples)
    rows = np.unique([int(np.argmax(examples.lengths)), 0])
    name = adapted.base.name
    try:
        batch = collate(examples.take(rows), adapted)
        with torch.inference_mode():
            logits = adapted.model(**batch.inputs).logits
            losses, _ = row_scores(logits, batch)
    except InputError:
        raise
    except Exception as error:  # whatever the model's own code raises
        cause = next(iter(str(error).strip().splitlines()), "")
        raise InputError(
            f'model "{name}" cannot be called with the data: {type(error).__name__}: '
            f"{cause[:200]}; it does not fit task {adapted.base.task!r}, or its files do not "
            "belong together",
            public="the model cannot be called with its data",
        ) from error
    if not bool(torch.isfinite(losses).all()):
        dtype = str(adapted.base.model.dtype).removeprefix("torch.")
        remedy = "" if dtype == "float32" else ' set [model] dtype = "float32", or'
        raise InputError(
            f'model "{name}" gives a loss that is no finite number before any training ({dtype});'
            f"{remedy} load its weights anew: they may be damaged",
            public="the model's loss is no finite number before any training",
        )


def _refuse_unknown(adapted: AdaptedModel, examples: TokenisedExamples) -> None:
    tokenizer: Any = adapted.base.tokenizer
    whose = f'the tokenizer of model "{adapted.base.name}"'
    ids = np.concatenate(examples.tokens)
    known = adapted.base.model.get_input_embeddings().weight.shape[0]
    if len(ids) and ids.max() >= known:
        raise InputError(
            f"{whose} makes token {ids.max()} of the data, the embedding has {known}; they do not "
            "belong together",
            public="the model's tokenizer makes tokens that its embedding does not have",
        )
    others = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    # GPT-2 calls its end of text unknown, too: then nothing can be told by it.
    names = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    if tokenizer.unk_token_id is None or tokenizer.unk_token_id in names:
        return
    words = ids[~np.isin(ids, list(others))]
    unknown = np.count_nonzero(words == tokenizer.unk_token_id) / max(1, len(words))
    if not len(words) or unknown > MOST_UNKNOWN:
        raise InputError(
            f"{whose} does not know {unknown:.0%} of the data's tokens; save the model's own "
            "tokenizer beside it, or choose a model for this language",
            public=f"the model's tokenizer does not know {unknown:.0%} of the data's tokens",
        )
