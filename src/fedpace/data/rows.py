"""Turn rows into `Examples`: find out the kind, check every row, number the classes."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.data.files import Row

KINDS = {
    "pair": ("text", "text_pair", "label"),
    "single": ("text", "label"),
    "instruct": ("prompt", "response"),
    "corpus": ("text",),
}
"""Kind to the columns it needs; the first whose columns are all there is taken."""

Codes = dict[int | str, int]
"""Label as it stands in the data (an integer also where it is written as a string) to class."""


@dataclass(frozen=True, slots=True)
class Table:
    """Checked rows in columns; labels still as they stand in the data."""

    kind: str
    texts: dict[str, list[str]]
    """The columns of strings, by name."""
    label: list[int | str]
    """Empty where the kind has none."""
    places: list[str]


def read_table(rows: Iterable[Row], source: str) -> Table:
    """Check rows and collect them in columns.

    The first row decides the kind and whether there are groups. Columns that no kind knows are
    not read. A value that is None (null) counts as missing.

    Args:
        rows: (place, row) as `files.read_rows` yields them.
        source: what to call all of them in a message.

    Returns:
        The table, in the order of the rows.

    Raises:
        InputError: no rows, no known set of columns, a row of another kind or without a column,
            or a text that is empty or not a string; the message names the place.
    """
    kind: str | None = None
    texts: dict[str, list[str]] = {}
    labels: list[int | str] = []
    places = []
    for place, row in rows:
        present = {name for name, value in row.items() if value is not None}
        if kind is None:
            kind = _kind(present)
            if kind is None:
                raise InputError(f"{place}: columns {_set(row)} make no example; {_FORMS}")
            wanted = {*KINDS[kind], *({"group"} & present)}
            texts = {name: [] for name in sorted(wanted - {"label"})}
        missing = sorted(wanted - present)
        if missing and wanted & present:
            raise InputError(f"{place}: {missing[0]} is missing; the first row has it, so all must")
        if _kind(present) != kind:
            raise InputError(
                f"{place}: columns {_set(row)} among examples of kind {kind!r}; "
                "give each kind a file of its own"
            )
        for name, column in texts.items():
            column.append(_string(row[name], name, place))
        if "label" in wanted:
            labels.append(_label(row["label"], place))
        places.append(place)
    if kind is None:
        raise InputError(f"{source}: holds no examples; {_FORMS}")
    return Table(kind, texts, labels, places)


def codes_of(labels: Sequence[int | str], names: Sequence[str] | None) -> tuple[Codes, list[str]]:
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


def to_examples(table: Table, codes: Codes, names: Sequence[str]) -> Examples:
    """Return the table as examples, its labels numbered by `codes`.

    Raises:
        InputError: a label that `codes` does not have; the message names the place.
    """
    label = None
    if table.label:
        for value, place in zip(table.label, table.places, strict=True):
            if value not in codes:
                known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
                raise InputError(
                    f"{place}: label {value!r} is none of the {len(names)} classes ({known}); "
                    "correct it, or the label_names in meta.json, or choose another [data] eval"
                )
        label = np.array([codes[value] for value in table.label], dtype=np.int64)
    columns = {name: tuple(column) for name, column in table.texts.items()}
    return Examples(
        kind=table.kind,
        text=columns["prompt" if table.kind == "instruct" else "text"],
        text_pair=columns.get("text_pair"),
        response=columns.get("response"),
        label=label,
        label_names=None if label is None else tuple(names),
        group=columns.get("group"),
    )


_FORMS = "known are " + ", ".join("{" + ", ".join(needed) + "}" for needed in KINDS.values())


def _kind(present: set[str]) -> str | None:
    return next((kind for kind, needed in KINDS.items() if present >= set(needed)), None)


def _set(row: dict[str, object]) -> str:
    return "{" + ", ".join(map(str, row)) + "}"


def _string(value: object, name: str, place: str) -> str:
    if name == "group" and isinstance(value, int):
        value = str(value)
    if not isinstance(value, str):
        raise InputError(f"{place}: {name} is {value!r}; it must be a string")
    if not value.strip():
        raise InputError(f"{place}: {name} is empty; fill it in or leave the row out")
    return value


def _label(value: object, place: str) -> int | str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d+\s*", value):
        return int(value)
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int):
        return value
    raise InputError(f"{place}: label is {value!r}; it must be a whole number or a name")
