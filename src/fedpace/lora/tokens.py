"""Examples into token ids, once: what a model reads of them, and where its loss is.

Causal language models see two kinds of examples: "instruct" (the loss is on the response alone) and
"corpus" (on every token).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.lora.model import BaseModel, Task

PROMPT_TEMPLATE = "Instruction:\n{prompt}\n\nResponse:\n"
"""What stands before the response of an "instruct" example; the end-of-text token stands after."""
IGNORED = -100
"""The label of a token that no loss is taken on."""

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TokenisedExamples:
    """M examples as token ids."""

    task: Task
    tokens: tuple[Integers, ...]
    """Ids of each example, unpadded."""
    labels: tuple[Integers, ...]
    """Classification: the class, shape (1,). Causal LM: the ids, `IGNORED` where no loss is."""
    segments: tuple[Integers, ...] | None = None
    """Which of the two texts of a pair each token belongs to, for models that ask."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> Integers:
        """Tokens of each example, shape (M,)."""
        return np.array([len(ids) for ids in self.tokens], dtype=np.int64)

    @property
    def targets(self) -> Integers:
        """Losses each example contributes to a mean, shape (M,): 1, or its labelled tokens."""
        if self.task == "classification":
            return np.ones(len(self), dtype=np.int64)
        # The first token has nothing before it to be predicted from.
        counts = [np.count_nonzero(ids[1:] != IGNORED) for ids in self.labels]
        return np.array(counts, dtype=np.int64)

    def take(self, index: ArrayLike) -> "TokenisedExamples":
        """Return the examples at `index`, in that order."""
        rows = np.asarray(index, dtype=np.int64)
        return TokenisedExamples(
            self.task,
            tuple(self.tokens[i] for i in rows),
            tuple(self.labels[i] for i in rows),
            None if self.segments is None else tuple(self.segments[i] for i in rows),
        )


def tokenise(examples: Examples, base: BaseModel, *, max_length: int) -> TokenisedExamples:
    """Turn text into token ids.

    "single" and "pair": truncated to `max_length`. "instruct": `PROMPT_TEMPLATE`, the response
    and the end-of-text token; where that is too long the prompt loses its oldest tokens first,
    then the response its last. "corpus": each passage is cut into blocks of `max_length`, so
    there may be more examples after than before: partition first, then tokenise.

    Args:
        examples: of a kind that fits the model's task.
        base: the model they are for.
        max_length: most tokens an example may have.

    Raises:
        InputError: kind and task do not fit, a label is out of range, or `max_length` is.
    """
    limit = _longest(base) or max_length
    if not 2 <= max_length <= limit:
        raise InputError(f'max_length is {max_length}; model "{base.name}" takes 2 to {limit}')
    kinds = {"classification": ("single", "pair"), "causal-lm": ("instruct", "corpus")}[base.task]
    if examples.kind not in kinds:
        raise InputError(
            f'the data are of kind "{examples.kind}"; task "{base.task}" needs '
            f'"{kinds[0]}" or "{kinds[1]}"'
        )
    if not len(examples):
        return TokenisedExamples(base.task, (), ())
    if base.task == "classification":
        return _tokenise_labelled(examples, base, max_length)
    if examples.kind == "instruct":
        return _tokenise_instruct(examples, base, max_length)
    return _tokenise_corpus(examples, base, max_length)


def _longest(base: BaseModel) -> int | None:
    """Tokens for which the model has positions; None where there is no such limit."""
    limit = getattr(base.model.config, "max_position_embeddings", None)
    for name, module in base.model.named_modules():
        # RoBERTa and its kin begin to count positions after that of the padding.
        if (
            name.endswith("position_embeddings")
            and getattr(module, "padding_idx", None) is not None
        ):
            return module.num_embeddings - module.padding_idx - 1
    return limit


def _tokenise_labelled(examples: Examples, base: BaseModel, max_length: int) -> TokenisedExamples:
    labels, classes = examples.label, base.model.config.num_labels
    if labels is None:
        raise InputError("the data have no labels; classification needs one for each example")
    if len(wrong := np.flatnonzero((labels < 0) | (labels >= classes))):
        raise InputError(
            f"example {wrong[0]} has label {labels[wrong[0]]}; the model has {classes} classes, "
            f"0 to {classes - 1}"
        )
    pairs = None if examples.kind == "single" else list(examples.text_pair or ())
    encoded = base.tokenizer(
        list(examples.text), pairs, truncation=True, max_length=max_length, padding=False
    )
    segments = encoded.get("token_type_ids") if pairs is not None else None
    return TokenisedExamples(
        "classification",
        _arrays(encoded["input_ids"]),
        _arrays([[label] for label in labels]),
        None if segments is None else _arrays(segments),
    )


def _tokenise_instruct(examples: Examples, base: BaseModel, max_length: int) -> TokenisedExamples:
    prompts = _plain_ids(base, [PROMPT_TEMPLATE.format(prompt=text) for text in examples.text])
    responses = base.tokenizer(
        list(examples.response or ()), add_special_tokens=False, verbose=False
    )["input_ids"]
    end = _end_of_text(base)
    tokens, labels = [], []
    for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        answer = (response + end)[: max_length - 1]
        if not answer:
            raise InputError(f"example {index} has an empty response; drop it")
        kept = prompt[-(max_length - len(answer)) :]
        tokens.append(kept + answer)
        labels.append([IGNORED] * len(kept) + answer)
    return TokenisedExamples("causal-lm", _arrays(tokens), _arrays(labels))


def _tokenise_corpus(examples: Examples, base: BaseModel, max_length: int) -> TokenisedExamples:
    end = _end_of_text(base)
    blocks = []
    for ids in _plain_ids(base, list(examples.text)):
        passage = ids + end
        # A block of one token predicts nothing.
        starts = range(0, max(len(passage) - 1, 0), max_length)
        blocks += [passage[start : start + max_length] for start in starts]
    tokens = _arrays(blocks)
    return TokenisedExamples("causal-lm", tokens, tokens)


def _plain_ids(base: BaseModel, texts: list[str]) -> list[list[int]]:
    """Ids with the tokenizer's beginning-of-text token, if it sets one, but without its end."""
    end = base.tokenizer.eos_token_id
    # Not verbose: it would warn of passages longer than the model, before they are cut.
    encoded: list[list[int]] = base.tokenizer(texts, verbose=False)["input_ids"]
    return [ids[:-1] if ids and ids[-1] == end else ids for ids in encoded]


def _end_of_text(base: BaseModel) -> list[int]:
    end = base.tokenizer.eos_token_id
    return [] if end is None else [end]


def _arrays(rows: Sequence[Sequence[int]]) -> tuple[Integers, ...]:
    return tuple(np.array(row, dtype=np.int64) for row in rows)
