"""Whether the arguments of a public function are of the kind that it takes."""

import functools
import inspect
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from fedpace.core.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")
Kind = str | type | tuple[type, ...]

NUMBER = "a number"
COUNT = "a whole number, 0 or more"
NUMBERS = "a number or an array of numbers"
PATH = "a path"
TEXTS = "a list of texts"


def takes(**kinds: Kind) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Check arguments before a function is called; a wrong one is an InputError that names it.

    Args:
        **kinds: what arguments must be, by name: a type, some types, or one of `NUMBER`, `COUNT`,
            `NUMBERS`, `PATH`, `TEXTS`. An argument whose default is None may be None. The name of
            `**keywords` stands for each of them, which may be None.

    Example:
        >>> @takes(seconds=NUMBER)
        ... def wait(seconds):
        ...     return seconds
        >>> wait("3")
        Traceback (most recent call last):
        ...
        fedpace.core.errors.InputError: wait(): seconds is '3', a str; give a number
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        variable = [n for n, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD]
        keywords = variable[0] if variable else ""

        @functools.wraps(function)
        def checked(*args: P.args, **options: P.kwargs) -> R:
            bound = signature.bind(*args, **options).arguments
            open_ended = bound.pop(keywords, {}) if keywords else {}
            for name, value in (*bound.items(), *open_ended.items()):
                kind = kinds.get(keywords if name in open_ended else name)
                optional = value is None and (
                    name in open_ended or signature.parameters[name].default is None
                )
                if kind is None or optional or _fits(kind, value):
                    continue
                raise InputError(
                    f"{function.__name__}(): {name} is {_shown(value)}, "
                    f"{_a(type(value).__name__)}; give {_wanted(kind)}"
                )
            return function(*args, **options)

        return checked

    return decorate


def check_fields(record: object, **kinds: Kind) -> None:
    """Check what a record was made of, in its `__post_init__`; otherwise as `takes`.

    Raises:
        InputError: a field is of another kind; the message names it.
    """
    for name, kind in kinds.items():
        if not _fits(kind, value := getattr(record, name)):
            raise InputError(
                f"{type(record).__name__}: {name} is {_shown(value)}, {_a(type(value).__name__)}; "
                f"give {_wanted(kind)}"
            )


def refuse_where(wrong: ArrayLike, name: str, column: ArrayLike, rule: str) -> None:
    """Refuse a column in which an entry is wrong; the first such is named.

    Args:
        wrong: which entries are, of the shape of `column`.
        name: of the column.
        column: its numbers.
        rule: what an entry must do or be.

    Raises:
        InputError: an entry is wrong.

    Example:
        >>> refuse_where([False, True], "rank", [4, 0], "be at least 1")
        Traceback (most recent call last):
        ...
        fedpace.core.errors.InputError: rank[1] is 0; it must be at least 1
    """
    if np.any(wrong):
        n = int(np.argmax(wrong))
        raise InputError(f"{name}[{n}] is {np.ravel(column)[n]:g}; it must {rule}")


def _fits(kind: Kind, value: Any) -> bool:
    if not isinstance(kind, str):
        return isinstance(value, kind)
    if kind == NUMBER:
        return isinstance(value, Real) and not isinstance(value, bool)
    if kind == COUNT:
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        return whole and bool(value >= 0)
    if kind == PATH:
        return isinstance(value, str | PathLike)
    if kind == TEXTS:
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        return listed and all(isinstance(each, str) for each in value)
    try:
        # A text is no number, though NumPy would read it.
        return np.asarray(value).dtype.kind in "iuf"
    except ValueError:
        return False


def _wanted(kind: Kind) -> str:
    if isinstance(kind, str):
        return kind
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(_named(each) for each in kinds)


def _named(kind: type) -> str:
    """Name a type, and what makes one of it where that is not its own name (`made_by`)."""
    makes = getattr(kind, "made_by", None)
    return _a(kind.__name__) + ("" if makes is None else f", as {makes} returns")


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiouAEIOU' else 'a'} {word}"


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
