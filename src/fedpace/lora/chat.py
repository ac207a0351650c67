r"""Conversations as tokens, with the assistant's words marked: those the loss is taken on.

A chat template turns a conversation into one text. Where an assistant's words stand in it is found
without knowing the template: the conversation is written twice more, each time with another text in
the place of those words; what both begin with stands before them, and what both end with, behind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from fedpace.core.errors import InputError
from fedpace.core.examples import Turn

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{{ m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ALPACA = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ 'Instruction:\\n' + m['content'] + '\\n\\n' }}{% elif m['role'] == 'assistant' %}"
    "{{ 'Response:\\n' + m['content'] + eos_token + '\\n\\n' }}{% else %}"
    "{{ m['content'] + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Response:\\n' }}{% endif %}"
)
PLAIN = "plain"
"""The name of no template: prompt and response under the headings of `tokens.PROMPT_TEMPLATE`."""
TEMPLATES = {"chatml": CHATML, "alpaca": ALPACA}
"""Templates by name, for models without one of their own."""
_SENTINELS = ("\x02first\x03", "\x04second\x05")
"""Two texts that have no beginning and no end in common, and that no template trims."""


@dataclass(frozen=True, slots=True)
class ChatTokens:
    """One conversation as token ids."""

    ids: list[int]
    answer: list[bool]
    """Whether the token is one of the assistant's: its words and the token that ends its turn."""


def has_template(tokenizer: Any) -> bool:
    """Return whether the model brings a chat template of its own."""
    return bool(getattr(tokenizer, "chat_template", None))


def template_of(tokenizer: Any, chosen: str, model_name: str) -> str:
    """Return the template's text.

    Args:
        tokenizer: of the model.
        chosen: "model" for its own, a name in `TEMPLATES`, or the path of a Jinja file.
        model_name: for messages.

    Raises:
        InputError: the model has none, or nothing has that name.
    """
    if chosen == "model":
        own = getattr(tokenizer, "chat_template", None)
        if isinstance(own, dict):
            own = own.get("default")
        if not own:
            raise InputError(
                f'model "{model_name}" has no chat template of its own; set [data] chat_template '
                f"to {' or '.join(map(repr, TEMPLATES))}, or to a Jinja file"
            )
        return str(own)
    if chosen in TEMPLATES:
        return TEMPLATES[chosen]
    path = Path(chosen)
    if not path.is_file():
        names = ", ".join(map(repr, ("model", PLAIN, *TEMPLATES)))
        raise InputError(f"[data] chat_template = {chosen!r} is none of {names}, and no file")
    return path.read_text("utf-8")


def render(
    tokenizer: Any, turns: Sequence[Turn], template: str, *, generation_prompt: bool = False
) -> str:
    """Return a conversation as the template writes it.

    Raises:
        InputError: the template refuses the turns, or is no template.
    """
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        text: str = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False,
            add_generation_prompt=generation_prompt,
        )  # fmt: skip
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"[data] chat_template is no Jinja template: {error.message}") from None
    except (jinja2.TemplateError, TypeError) as error:
        roles = ", ".join(role for role, _ in turns)
        raise InputError(
            f"the chat template refuses a conversation of the turns {roles}: {error}; change the "
            "conversation, or [data] chat_template"
        ) from None
    return text


def word_span(
    tokenizer: Any, turns: Sequence[Turn], template: str, text: str, index: int
) -> tuple[int, int] | None:
    """Return where the words of a turn stand in a conversation's text; None where it has them not.

    Args:
        tokenizer: of the model.
        turns: (role, words), in order.
        template: text of a Jinja template.
        text: what `render` makes of the turns.
        index: of the turn.
    """
    role = turns[index][0]
    one, other = (
        render(tokenizer, [*turns[:index], (role, words), *turns[index + 1 :]], template)
        for words in _SENTINELS
    )
    if _SENTINELS[0] not in one:
        return None
    behind = len(other) - other.index(_SENTINELS[1]) - len(_SENTINELS[1])
    return one.index(_SENTINELS[0]), len(text) - behind


def tokenise_chat(tokenizer: Any, turns: Sequence[Turn], template: str) -> ChatTokens:
    """Return a conversation as tokens.

    The template writes the special tokens; what people wrote never becomes one, even where it
    looks like one.

    Args:
        tokenizer: a fast one: it says where in the text each token stands.
        turns: (role, words), in order.
        template: text of a Jinja template.

    Raises:
        InputError: the template does not fit, or the tokenizer cannot say where tokens stand.
    """
    text = render(tokenizer, turns, template)
    names = [str(token) for token in tokenizer.all_special_tokens]
    names += [str(token) for token in getattr(tokenizer, "added_tokens_encoder", {})]
    spans, plain = [], []
    for index, (role, words) in enumerate(turns):
        named = any(name in words for name in names)
        if role != "assistant" and not named:
            continue
        span = word_span(tokenizer, turns, template, text, index)
        if role == "assistant" and span is None:
            raise InputError(
                f"the chat template leaves out turn {index + 1} of {len(turns)}, which is the "
                "assistant's; choose another [data] chat_template"
            )
        if role == "assistant":
            spans.append(span)
        if named and span is not None:
            plain.append(span)
    special = set(tokenizer.all_special_ids)
    ids, places = _encoded(tokenizer, text, plain)
    answer = [any(low <= start < high for low, high in spans) for start, _ in places]
    for position in range(1, len(ids)):
        # The token that ends the turn is the assistant's, too: it must learn to stop.
        if answer[position - 1] and not answer[position] and ids[position] in special:
            answer[position] = places[position][0] in {high for _, high in spans}
    return ChatTokens(ids, answer)


def _encoded(
    tokenizer: Any, text: str, plain: Sequence[tuple[int, int]]
) -> tuple[list[int], list[tuple[int, int]]]:
    """Encode a text; the stretches of it that are `plain` have no special tokens."""
    if not tokenizer.is_fast:
        raise InputError(
            "chat data need a fast tokenizer (tokenizer.json), which says where tokens stand; "
            "convert the model's with transformers"
        )
    pieces: list[tuple[int, int, bool]] = []
    cursor = 0
    for low, high in plain:
        pieces += [(cursor, low, False), (low, high, True)]
        cursor = high
    pieces.append((cursor, len(text), False))
    ids: list[int] = []
    places: list[tuple[int, int]] = []
    for low, high, as_text in pieces:
        encoded = tokenizer(
            text[low:high], add_special_tokens=False, return_offsets_mapping=True,
            split_special_tokens=as_text, verbose=False,
        )  # fmt: skip
        ids += encoded["input_ids"]
        places += [(low + a, low + b) for a, b in encoded["offset_mapping"]]
    return ids, places
