"""Examples into token ids, once: what a model reads of them, and where its loss is.

What people wrote is text, also where it looks like a special token of the model ("[SEP]", "</s>").

Causal language models see three kinds of examples: "instruct" (the loss is on the response alone),
"chat" (on the assistant's words) and "corpus" (on every token).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples, Turn
from fedpace.lora.chat import PLAIN, ChatTokens, has_template, template_of, tokenise_chat
from fedpace.lora.model import BaseModel, Task

LossOn = Literal["response", "all"]
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
    spans: Integers | None = None
    """Tokens before the cut, and cut away: of the prompt (or text) and of the answer, shape
    (M, 4): prompt, answer, then what each lost; None where nothing was cut."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> Integers:
        """Tokens of each example, shape (M,)."""
        return np.array([len(ids) for ids in self.tokens], dtype=np.int64)

    @property
    def whole(self) -> Integers:
        """Tokens of prompt (or text) and answer before they were cut, shape (M, 2)."""
        if self.spans is None:
            return np.stack([self.lengths, np.zeros_like(self.lengths)], axis=1)
        return self.spans[:, :2]

    @property
    def lost(self) -> Integers:
        """Tokens of prompt (or text) and answer that were cut away, shape (M, 2)."""
        return np.zeros((len(self), 2), np.int64) if self.spans is None else self.spans[:, 2:]

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
            None if self.spans is None else self.spans[rows],
        )


def tokenise(
    examples: Examples,
    base: BaseModel,
    *,
    max_length: int,
    chat_template: str = "model",
    loss_on: LossOn = "response",
) -> TokenisedExamples:
    """Turn text into token ids.

    "single" and "pair": truncated to `max_length`. "instruct": a turn of the user and one of the
    assistant as the chat template writes them; without a template `PROMPT_TEMPLATE`, the response
    and the end-of-text token. "chat": all turns as the template writes them. Where that is too
    long, what stands before the last response loses its oldest tokens first, then that response its
    last. "corpus": each passage is cut into blocks of `max_length`, so
    there may be more examples after than before: partition first, then tokenise.

    Args:
        examples: of a kind that fits the model's task.
        base: the model they are for.
        max_length: most tokens an example may have.
        chat_template: "model" takes the model's own (and for "instruct" none where it has none);
            or "plain", "chatml", "alpaca", or a Jinja file.
        loss_on: "response": the assistant's words and the token that ends them; "all": every token.

    Raises:
        InputError: kind and task do not fit, a label is out of range, or `max_length` is.
    """
    limit = longest(base) or max_length
    if not 2 <= max_length <= limit:
        raise InputError(f'max_length is {max_length}; model "{base.name}" takes 2 to {limit}')
    kinds = {"classification": ("single", "pair"), "causal-lm": ("instruct", "chat", "corpus")}[
        base.task
    ]
    if examples.kind not in kinds:
        raise InputError(
            f'the data are of kind "{examples.kind}"; task "{base.task}" needs '
            + " or ".join(f'"{kind}"' for kind in kinds),
            public=f"data of kind {examples.kind!r}, which task {base.task!r} cannot use",
        )
    if not len(examples):
        return TokenisedExamples(base.task, (), ())
    if base.task == "classification":
        return _tokenise_labelled(examples, base, max_length)
    if examples.kind == "corpus":
        return _tokenise_corpus(examples, base, max_length)
    plain = examples.kind == "instruct" and (
        chat_template == PLAIN or (chat_template == "model" and not has_template(base.tokenizer))
    )
    if plain:
        found = _tokenise_instruct(examples, base, max_length)
    else:
        template = template_of(base.tokenizer, chat_template, base.name)
        found = _tokenise_turns(_turns(examples), base, template, max_length)
    return found if loss_on == "response" else replace(found, labels=found.tokens)


def longest(base: BaseModel) -> int | None:
    """Return the tokens for which the model has positions; None where there is no such limit."""
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
        what = "the data have no labels; classification needs one for each example"
        raise InputError(what, public=what)
    if len(wrong := np.flatnonzero((labels < 0) | (labels >= classes))):
        raise InputError(
            f"example {wrong[0]} has label {labels[wrong[0]]}; the model has {classes} classes, "
            f"0 to {classes - 1}",
            public=f"a label is none of the model's {classes} classes",
        )
    pairs = None if examples.kind == "single" else list(examples.text_pair or ())

    def encode(rows: Sequence[int], **options: Any) -> Any:
        texts = [examples.text[i] for i in rows]
        others = None if pairs is None else [pairs[i] for i in rows]
        return base.tokenizer(texts, others, split_special_tokens=True, verbose=False, **options)

    encoded = encode(range(len(examples)))
    _refuse_empty(encoded["input_ids"])
    whole = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
    long = np.flatnonzero(whole > max_length).tolist()
    if long:
        cut = encode(long, truncation=True, max_length=max_length)
        for key in encoded:
            for row, ids in zip(long, cut[key], strict=True):
                encoded[key][row] = ids
    kept = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
    segments = encoded.get("token_type_ids") if pairs is not None else None
    return TokenisedExamples(
        "classification",
        _arrays(encoded["input_ids"]),
        _arrays([[label] for label in labels]),
        None if segments is None else _arrays(segments),
        np.stack([whole, 0 * whole, whole - kept, 0 * whole], axis=1),
    )


def _tokenise_instruct(examples: Examples, base: BaseModel, max_length: int) -> TokenisedExamples:
    prompts = _plain_ids(base, [PROMPT_TEMPLATE.format(prompt=text) for text in examples.text])
    responses = base.tokenizer(
        list(examples.response or ()), add_special_tokens=False, split_special_tokens=True,
        verbose=False,
    )["input_ids"]  # fmt: skip
    end = _end_of_text(base)
    tokens, labels, spans = [], [], []
    for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        answer = (response + end)[: max_length - 1]
        if not answer:
            raise InputError(
                f"example {index} has an empty response; drop it", public="a response is empty"
            )
        kept = prompt[-(max_length - len(answer)) :]
        tokens.append(kept + answer)
        labels.append([IGNORED] * len(kept) + answer)
        whole = len(prompt), len(response + end)
        spans.append((*whole, whole[0] - len(kept), whole[1] - len(answer)))
    return _of_language(tokens, labels, spans)


def _turns(examples: Examples) -> Sequence[Sequence[Turn]]:
    if examples.turns is not None:
        return examples.turns
    pairs = zip(examples.text, examples.response or (), strict=True)
    return [(("user", prompt), ("assistant", response)) for prompt, response in pairs]


def _tokenise_turns(
    conversations: Sequence[Sequence[Turn]], base: BaseModel, template: str, max_length: int
) -> TokenisedExamples:
    tokens, labels, spans = [], [], []
    for index, turns in enumerate(conversations):
        chat = tokenise_chat(base.tokenizer, turns, template)
        if not any(chat.answer):
            raise InputError(f"example {index} has no word of the assistant's; drop it")
        ids, answer, span = _cut(chat, max_length)
        tokens.append(ids)
        labels.append([i if a else IGNORED for i, a in zip(ids, answer, strict=True)])
        spans.append(span)
    return _of_language(tokens, labels, spans)


def _of_language(
    tokens: Sequence[list[int]], labels: Sequence[list[int]], spans: Sequence[Sequence[int]]
) -> TokenisedExamples:
    table = np.array(spans, dtype=np.int64).reshape(-1, 4)
    return TokenisedExamples("causal-lm", _arrays(tokens), _arrays(labels), spans=table)


def _cut(chat: ChatTokens, max_length: int) -> tuple[list[int], list[bool], tuple[int, ...]]:
    """Keep the last response and as much before it as there is room for.

    Returns:
        Ids, which of them are the assistant's, and the row of `TokenisedExamples.spans`.
    """
    last = len(chat.answer) - chat.answer[::-1].index(True)
    start = last
    while start > 0 and chat.answer[start - 1]:
        start -= 1
    whole = start, last - start
    if len(chat.ids) <= max_length:
        return chat.ids, chat.answer, (*whole, 0, 0)
    end = min(last, start + max_length - 1)
    begin = max(0, end - max_length)
    kept = slice(begin, end)
    return chat.ids[kept], chat.answer[kept], (*whole, begin, last - end)


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
    encoded: list[list[int]] = base.tokenizer(texts, split_special_tokens=True, verbose=False)[
        "input_ids"
    ]
    _refuse_empty(encoded)
    return [ids[:-1] if ids and ids[-1] == end else ids for ids in encoded]


def _refuse_empty(encoded: Sequence[Sequence[int]]) -> None:
    """Refuse a text that the tokenizer makes nothing of: there is nothing to train on."""
    empty = [index for index, ids in enumerate(encoded) if not ids]
    if empty:
        raise InputError(
            f"{len(empty)} of {len(encoded)} texts give no token at all (the first is example "
            f"{empty[0]}); leave them out, or save the model's own tokenizer beside it",
            public=f"{len(empty)} of {len(encoded)} texts give no token at all",
        )


def _end_of_text(base: BaseModel) -> list[int]:
    end = base.tokenizer.eos_token_id
    return [] if end is None else [end]


def _arrays(rows: Sequence[Sequence[int]]) -> tuple[Integers, ...]:
    return tuple(np.array(row, dtype=np.int64) for row in rows)
