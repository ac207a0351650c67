"""Turn rows into `Examples`: find out the kind, check every row."""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples, Turn
from fedpace.core.text_files import broken_character, listed, shortened
from fedpace.data.choices import CHOICES, all_choices, choices_of
from fedpace.data.columns import FORMS, KINDS, hint, kind_of, respelt
from fedpace.data.conversations import TURNS, turns_of, unified
from fedpace.data.files import Row
from fedpace.data.labels import Codes, Label, label_of

logger = logging.getLogger(__name__)

_SEVERAL = 10
"""Fewer examples than this may well have a label each."""


@dataclass(frozen=True, slots=True)
class Table:
    """Checked rows in columns; labels still as they stand in the data."""

    kind: str
    texts: dict[str, list[str]]
    """The columns of strings, by name."""
    label: list[Label]
    """Empty where the kind has none."""
    places: list[str]
    turns: list[tuple[Turn, ...]] = field(default_factory=list)
    """The conversations; empty where the kind has none."""
    choices: list[tuple[str, ...]] = field(default_factory=list)
    """The answers that each question allows; empty where there is no such column."""


def read_table(rows: Iterable[Row], source: str, stated: Collection[str] = ()) -> Table:
    """Check rows and collect them in columns.

    The first row decides the kind and whether there are groups. Columns that others use for
    conversations and instructions are read as ours, and it is said. Columns that no kind knows are
    not read. A value that is None (null) counts as missing.

    Args:
        rows: (place, row) as `files.read_rows` yields them.
        source: what to call all of them in a message.
        stated: class names that the source states.

    Returns:
        The table, in the order of the rows.

    Raises:
        InputError: no rows, no known set of columns, a column that differs from a known one in
            spelling alone, a row of another kind or without a column, or a text that is empty, not
            a string, or cannot be written as UTF-8; the message names the place.
    """
    kind: str | None = None
    texts: dict[str, list[str]] = {}
    labels: list[Label] = []
    places: list[str] = []
    turns: list[tuple[Turn, ...]] = []
    choices: list[tuple[str, ...]] = []
    for place, given in rows:
        row, renamed = unified(given)
        if renamed and not places:
            logger.warning("%s: %s", source, renamed)
        present = {name for name, value in row.items() if value is not None}
        if kind is None:
            kind = _kind_of_first(row, present, place)
            optional = {"group", CHOICES} if kind == "instruct" else {"group"}
            wanted = {*KINDS[kind], *(optional & present)}
            texts = {name: [] for name in sorted(wanted - {"label", TURNS, CHOICES})}
        missing = sorted(wanted - present)
        if missing and wanted & present:
            raise InputError(
                f"{place}: {missing[0]} is missing; the first row has it, so all must",
                public=f"a row lacks the column {missing[0]!r}",
            )
        if kind_of(present) != kind:
            raise InputError(
                f"{place}: columns {_set(row)} among examples of kind {kind!r}; "
                "give each kind a file of its own",
                public=f"a row of another kind among examples of kind {kind!r}",
            )
        for name, column in texts.items():
            column.append(_string(row[name], name, place))
        if TURNS in wanted:
            turns.append(turns_of(row[TURNS], place))
        if CHOICES in wanted:
            choices.append(choices_of(row[CHOICES], texts["response"][-1], place))
        if "label" in wanted:
            labels.append(label_of(row["label"], place, stated))
        places.append(place)
    if kind is None:
        raise InputError(f"{source}: holds no examples; {FORMS}", public="no examples")
    if turns:
        texts["text"] = ["\n".join(f"{role}: {words}" for role, words in each) for each in turns]
    return Table(kind, texts, labels, places, turns, choices)


def to_examples(table: Table, codes: Codes, names: Sequence[str]) -> Examples:
    """Return the table as examples, its labels numbered by `codes`.

    Raises:
        InputError: a label that `codes` does not have; the message names the place.
    """
    label = None
    if table.label:
        for value, place in zip(table.label, table.places, strict=True):
            if value not in codes:
                raise InputError(
                    f"{place}: label {shortened(value)} is none of the {len(names)} classes "
                    f"({listed(names)}); correct it, or the label_names in meta.json, or choose "
                    "another [data] eval",
                    public=f"a label is none of the {len(names)} classes",
                )
        label = np.array([codes[value] for value in table.label], dtype=np.int64)
    columns = {name: tuple(column) for name, column in table.texts.items()}
    choices = tuple(table.choices) or None
    if table.kind == "instruct" and choices is None:
        choices = all_choices(columns["prompt"], columns["response"])
    return Examples(
        kind=table.kind,
        text=columns["prompt" if table.kind == "instruct" else "text"],
        text_pair=columns.get("text_pair"),
        response=columns.get("response"),
        turns=tuple(table.turns) or None,
        label=label,
        label_names=None if label is None else tuple(names),
        group=columns.get("group"),
        choices=choices,
    )


def refuse_distinct(table: Table) -> None:
    """Refuse a column of labels in which no value stands twice: texts or numbers of rows.

    Raises:
        InputError: ten labels or more, all different.
    """
    count = len(table.label)
    if count >= _SEVERAL and len(set(table.label)) == count:
        what = f"each of the {count} examples has a label of its own; is 'label' the right column?"
        raise InputError(f"{table.places[0]} and on: {what}", public=what)


def _kind_of_first(row: dict[str, object], present: set[str], place: str) -> str:
    for name, known in respelt(map(str, row)).items():
        raise InputError(
            f"{place}: column {shortened(name)} is probably meant as {known!r}; rename it, or "
            "leave it out",
            public=f"a column that is probably meant as {known!r}",
        )
    kind = kind_of(present)
    if kind is None or (kind == "corpus" and "labels" in present):
        raise InputError(
            f"{place}: columns {_set(row)} make no example; {FORMS}{hint(map(str, row))}",
            public=f"{len(row)} columns that make no example; {FORMS}",
        )
    return kind


def _set(row: dict[str, object]) -> str:
    return "{" + listed(row) + "}"


def _string(value: object, name: str, place: str) -> str:
    if name == "group" and isinstance(value, int) and value.bit_length() < 4096:
        value = str(value)
    if not isinstance(value, str):
        raise InputError(
            f"{place}: {name} is {shortened(value)}; it must be a string",
            public=f"{name} is no string",
        )
    if not value.strip():
        raise InputError(
            f"{place}: {name} is empty; fill it in or leave the row out", public=f"{name} is empty"
        )
    if half := broken_character(value):
        raise InputError(
            f"{place}: {name} holds half of a surrogate pair ({half}, a cut emoji) and cannot be "
            "written as UTF-8; replace it or leave the row out",
            public=f"{name} cannot be written as UTF-8",
        )
    return value
