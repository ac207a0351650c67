"""The answers that a question allows: a column of the data, or what its prompt says."""

import re
from collections.abc import Iterable, Mapping

from fedpace.core.errors import InputError
from fedpace.core.text_files import listed, shortened

CHOICES = "choices"
_FORMAT = re.compile(r"Answer format:\s*([^\s/]+(?:/[^\s/]+)+)\s*$")
"""How the data sets of LLM-Adapters end their prompts."""


def choices_of(value: object, response: str, place: str) -> tuple[str, ...]:
    """Check a question's list of answers.

    Args:
        value: of the column "choices": a list, or as the hub has it {"text": list, ...}.
        response: the right one.
        place: of the row, for messages.

    Raises:
        InputError: it is no list of two different texts or more, or the response is not in it.
    """
    stated = value.get("text") if isinstance(value, Mapping) else value
    found = tuple(stated) if isinstance(stated, list | tuple) else ()
    texts = [text for text in found if isinstance(text, str) and text.strip()]
    if len(set(texts)) != len(found) or len(found) < 2:
        raise InputError(
            f"{place}: {CHOICES} is {shortened(value)}; it must be a list of at least two "
            "different texts; correct it, or leave the column out",
            public="choices is no list of different texts",
        )
    if response not in texts:
        raise InputError(
            f"{place}: the response {shortened(response)} is none of the {CHOICES} "
            f"({listed(texts)}); it must be one of them, word for word; correct it, or "
            "leave the column out",
            public="a response is none of its choices",
        )
    return tuple(texts)


def choices_in(prompt: str, response: str) -> tuple[str, ...]:
    """Return the answers that a prompt states as LLM-Adapters' do; empty for an open question.

    Example:
        >>> choices_in("Is ice cold?  Answer format: true/false", "the correct answer is true")
        ('the correct answer is true', 'the correct answer is false')
        >>> choices_in("Is ice cold?", "yes")
        ()
    """
    found = _FORMAT.search(prompt)
    words = found[1].split("/") if found else []
    right = max((word for word in words if response.endswith(word)), key=len, default="")
    if not right or len(set(words)) != len(words):
        return ()
    before = response.removesuffix(right)
    return tuple(before + word for word in words)


def all_choices(
    prompts: Iterable[str], responses: Iterable[str]
) -> tuple[tuple[str, ...], ...] | None:
    """Return what each prompt states; None where none states any."""
    found = tuple(choices_in(p, r) for p, r in zip(prompts, responses, strict=True))
    return found if any(found) else None
