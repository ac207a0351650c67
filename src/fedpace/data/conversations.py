"""Conversations and instructions in the columns that others use, as the columns we know."""

from collections.abc import Mapping
from typing import Any

from fedpace.core.errors import InputError
from fedpace.core.examples import Turn
from fedpace.core.text_files import broken_character, shortened

ROLES = {
    "system": "system", "user": "user", "assistant": "assistant",
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "model": "assistant",
}  # fmt: skip
"""Names of roles, ShareGPT's and others', and ours."""
TURNS = "messages"
"""The column of a conversation."""

SHAREGPT = "ShareGPT's 'conversations' are read as 'messages'"
ALPACA = "Alpaca's 'instruction', 'input' and 'output' are read as 'prompt' and 'response'"
DOLLY = "Dolly's 'instruction', 'context' and 'category' are read as 'prompt' and 'group'"


def unified(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], str | None]:
    r"""Return a row with the columns that we know, and what was renamed to get there.

    ShareGPT's {"conversations": [{"from", "value"}, ...]} becomes {"messages": [...]}, Alpaca's
    {"instruction", "input", "output"} and Dolly's {"instruction", "context", "response"} become
    {"prompt", "response"}, the context behind a blank line; a "category" becomes the "group".

    Example:
        >>> unified({"instruction": "Add.", "input": "2 and 2", "output": "4"})[0]
        {'prompt': 'Add.\n\n2 and 2', 'response': '4'}
        >>> unified({"text": "a"})
        ({'text': 'a'}, None)
    """
    if "conversations" in row and TURNS not in row:
        rest = {name: value for name, value in row.items() if name != "conversations"}
        return {TURNS: row["conversations"], **rest}, SHAREGPT
    if not {"prompt", "instruction"} <= row.keys():
        if {"instruction", "output"} <= row.keys() and "response" not in row:
            return _instruction(row, "input", "output"), ALPACA
        if {"instruction", "context", "response"} <= row.keys():
            return _instruction(row, "context", "response"), DOLLY
    return row, None


def _instruction(row: Mapping[str, Any], context: str, response: str) -> dict[str, Any]:
    used = ("instruction", context, response, "category")
    rest = {name: value for name, value in row.items() if name not in used}
    prompt, more = row["instruction"], row.get(context)
    if isinstance(prompt, str) and isinstance(more, str) and more.strip():
        prompt = f"{prompt}\n\n{more}"
    if "category" in row and "group" not in row:
        rest["group"] = row["category"]
    return {"prompt": prompt, "response": row[response], **rest}


def turns_of(value: object, place: str) -> tuple[Turn, ...]:
    """Check a conversation.

    Args:
        value: a list of {"role", "content"} (or {"from", "value"}).
        place: of the row, for messages.

    Returns:
        (role, words) of each turn; at least one is the assistant's.

    Raises:
        InputError: what is wrong with it, and in which turn.
    """
    try:
        messages = list(value)  # type: ignore[call-overload]
    except TypeError:
        messages = []
    if isinstance(value, str | bytes | Mapping) or not messages:
        raise InputError(
            f"{place}: {TURNS} is {shortened(value)}; it must be a list of "
            '{"role": ..., "content": ...}, one for each turn',
            public=f"{TURNS} is not a list of turns",
        )
    turns = tuple(_turn(m, i, place) for i, m in enumerate(messages, start=1))
    if not any(role == "assistant" for role, _ in turns):
        what = "no turn is the assistant's, so there is nothing to learn"
        raise InputError(f"{place}: {what}; leave the row out", public=what)
    return turns


def _turn(message: object, number: int, place: str) -> Turn:
    if not isinstance(message, Mapping):
        raise InputError(
            f'{place}: turn {number} is {shortened(message)}; it must be {{"role", "content"}}',
            public=f"turn {number} is no role with content",
        )
    role = message.get("role", message.get("from"))
    words = message.get("content", message.get("value"))
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise InputError(
            f"{place}: the role of turn {number} is {shortened(role)}; known are "
            f"{', '.join(ROLES)}",
            public=f"the role of turn {number} is none of {', '.join(ROLES)}",
        )
    if not isinstance(words, str) or not words.strip():
        raise InputError(
            f"{place}: the content of turn {number} ({role}) is {shortened(words)}; it must be "
            "text; calls of tools and pictures are not supported",
            public=f"the content of turn {number} is no text",
        )
    if half := broken_character(words):
        raise InputError(
            f"{place}: turn {number} holds half of a surrogate pair ({half}, a cut emoji) and "
            "cannot be written as UTF-8; replace it or leave the row out",
            public=f"turn {number} cannot be written as UTF-8",
        )
    return ROLES[role.lower()], words
