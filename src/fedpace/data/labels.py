"""Labels: what one value means, whatever format it stood in, and the numbers of the classes."""

import math
import re
from collections.abc import Collection, Sequence

from fedpace.core.errors import InputError
from fedpace.core.text_files import broken_character, shortened

Label = int | str
"""A label as it stands in the data: a whole number, also where it is written as text, or a name."""
Codes = dict[Label, int]
"""Label to class."""

MAX_CHARACTERS = 1000
"""A longer label is a text."""
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_WORDS = {"True": "true", "False": "false"}
"""The truth values that CSV writers make of what JSON calls true and false."""


def label_of(value: object, place: str, stated: Collection[str] = ()) -> Label:
    """Return the label that a value of the column "label" is.

    A text is a number where it is written as that number is: "7" is 7, "007" and "7th" are names.
    A whole number in floating point (7.0, or "7.0", as tables with gaps are written) is that
    number. Other real numbers are no classes, unless a class of that name is stated.

    Args:
        value: as a reader gave it.
        place: for messages.
        stated: class names that the source states.

    Raises:
        InputError: no label.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return value if _WHOLE.fullmatch(text := _digits(value, place)) else text
    if isinstance(value, float):
        return _from_real(value, repr(value), place, stated)
    if isinstance(value, str) and (text := value.strip()):
        if half := broken_character(text):
            raise InputError(
                f"{place}: label holds half of a surrogate pair ({half}, a cut emoji) and cannot "
                "be written as UTF-8; replace it or leave the row out",
                public="a label cannot be written as UTF-8",
            )
        if len(text) > MAX_CHARACTERS:
            raise InputError(
                f"{place}: label is {shortened(text)}, {len(text)} characters; a class name has "
                f"at most {MAX_CHARACTERS}: is it the text?",
                public=f"a label has {len(text)} characters, at most {MAX_CHARACTERS} are allowed",
            )
        if _WHOLE.fullmatch(text):
            return int(text)
        if (real := _real(text)) is not None:
            return _from_real(real, text, place, stated)
        return _WORDS.get(text, text)
    raise InputError(
        f"{place}: label is {shortened(value)}; it must be a whole number or a name",
        public="a label is neither a whole number nor a name",
    )


def _digits(value: int, place: str) -> str:
    if value.bit_length() > 4 * MAX_CHARACTERS:
        raise InputError(
            f"{place}: label is {shortened(value)}; a class has no such number",
            public=f"a label is an integer of {value.bit_length()} bits",
        )
    return str(value)


def _real(text: str) -> float | None:
    """The number that a text is, where it is written as Python and most others write it."""
    try:
        real = float(text) if len(text) < 30 and text.isascii() else None
    except ValueError:
        return None
    return real if real is not None and repr(real) == text else None


def _from_real(value: float, text: str, place: str, stated: Collection[str]) -> Label:
    if text in stated:
        return text
    if math.isfinite(value) and value == int(value):
        return label_of(int(value), place)
    raise InputError(
        f"{place}: label is {text}; it must be a whole number or a name (where it is one, "
        "state the class names as label_names in meta.json)",
        public="a label is a real number, neither a whole number nor a name",
    )


def codes_of(labels: Sequence[Label], names: Sequence[str] | None) -> tuple[Codes, list[str]]:
    """Number the classes.

    Args:
        labels: of the training data.
        names: the class names where the source states them; then an integer label is an index
            into them. Without, the distinct labels are numbered in sorted order, integers first.

    Returns:
        Codes, and the class names in the order of their numbers.

    Example:
        >>> codes_of(["spam", "ham"], None)
        ({'ham': 0, 'spam': 1}, ['ham', 'spam'])
        >>> codes_of([0], ["ham", "spam"])[0]
        {'ham': 0, 'spam': 1, 0: 0, 1: 1}
    """
    if names is not None:
        by_name: Codes = {name: c for c, name in enumerate(names)}
        return by_name | {c: c for c in range(len(names))}, list(names)
    distinct = sorted(set(labels), key=lambda label: (isinstance(label, str), label))
    return {label: c for c, label in enumerate(distinct)}, [str(label) for label in distinct]
