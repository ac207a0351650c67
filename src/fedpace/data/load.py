"""Training and evaluation examples by name: the embedded set, a file, a folder, or a hub id."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.core.text_files import broken_character, listed, read_text, shortened
from fedpace.data.evaluation import compare, refuse_other_kind, refuse_training_files
from fedpace.data.files import format_of, parse_json, read_rows
from fedpace.data.hub import hub_label_names, hub_rows, load_hub
from fedpace.data.labels import Codes, codes_of
from fedpace.data.rows import Table, read_table, refuse_distinct, to_examples
from fedpace.data.split import hold_out
from fedpace.data.splits import EVAL, files_by_split, find, only_evaluates, train_split, unused
from fedpace.data.stdlib_docs import stdlib_docs

STDLIB_DOCS = "stdlib-docs"
STDLIB_TEST_SHARE = 0.15
TEST_SHARE = 0.10
"""Held out where a source has no evaluation data of its own."""

HOLDOUT = "holdout"
"""Evaluate on a part of the training data: for tuning, which must not see the test data."""

_MAX_META_BYTES = 2**24
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Named splits of one data set, read when asked for."""

    name: str
    splits: Mapping[str, Callable[[], Table]]
    label_names: Sequence[str] | None
    files: Mapping[str, list[Path]] = field(default_factory=dict)
    """Those of each split, where the source is a file or a folder."""

    def tell_unused(self, split: str, evaluated: Sequence[Path] = ()) -> None:
        """Name what lies in the folder and is neither trained on nor evaluated on."""
        folder = Path(self.name).expanduser()
        if folder.is_dir() and (names := unused(folder, [*self.files[split], *evaluated])):
            logger.warning("%s: not used: %s", self.name, listed(names, 5))


def load_data(
    name: str, *, eval: str | None = None, seed: int, train_elsewhere: bool = False
) -> tuple[Examples, Examples]:
    """Return training and evaluation examples.

    Args:
        name: "stdlib-docs" (the docstrings of this Python's standard library), a data file, a
            folder of them, or a hub id ("owner/name" or "owner/name:config").
        eval: a data file, or a split of `name`. Without, the split "test" or "validation" where
            `name` has one; else 10 % of the examples are held out (15 % of "stdlib-docs").
            "holdout" tunes without the test data: 10 % of the training examples are held out.
        seed: the run's seed; it decides what is held out.
        train_elsewhere: of a server, whose clients train on their own data: of `name` it takes
            the classes and the kind of examples, so `eval` may be the same; and where `name` has
            only a split to evaluate on, that is both.

    Returns:
        (train, test), of one kind and with the same `label_names`.

    Raises:
        InputError: what is named is not there or not as docs/data.md says; the message names
            the file and the line.
        MissingExtraError: Parquet or a hub id without the `lora` extra.

    Example:
        >>> train, test = load_data("stdlib-docs", seed=0)
        >>> train.kind, len(train.label_names), len(train) > 5 * len(test)
        ('single', 12, True)
    """
    if eval == HOLDOUT:
        train, _ = load_data(name, seed=seed)
        return hold_out(train, TEST_SHARE, seed)
    if name == STDLIB_DOCS:
        return _load_stdlib_docs(eval, seed)
    source = _source(name)
    if train_elsewhere and only_evaluates(source.splits):
        held = next(iter(source.splits.values()))()
        found = to_examples(held, *codes_of(held.label, source.label_names))
        return found, found
    trained = train_split(source.splits, name)
    table = source.splits[trained]()
    refuse_distinct(table)
    codes, names = codes_of(table.label, source.label_names)
    train = to_examples(table, codes, names)
    split = find(source.splits, (eval,) if eval else (w for w in EVAL if w != trained.lower()))
    if split is None and eval is None:
        source.tell_unused(trained)
        return hold_out(train, TEST_SHARE, seed)
    if split is None:
        files, read = _eval_file(str(eval), source)
    else:
        files, read = source.files.get(split, []), source.splits[split]
    if not train_elsewhere:
        refuse_training_files(files, source.files.get(trained, []), eval or split)
        if split == trained:
            raise InputError(f"[data] eval = {eval!r} is what is trained on; name other data")
    source.tell_unused(trained, files)
    held = read()
    refuse_other_kind(table, held)
    if not train_elsewhere:
        compare(table, held, eval or split)
    return train, to_examples(held, codes, names)


def _load_stdlib_docs(eval: str | None, seed: int) -> tuple[Examples, Examples]:
    if eval not in (None, "test"):
        raise InputError(
            f"[data] eval = {eval!r}: 'stdlib-docs' is evaluated on docstrings it holds out; "
            "leave eval away"
        )
    return hold_out(stdlib_docs(), STDLIB_TEST_SHARE, seed)


def _path(name: str, key: str) -> Path:
    """Return a path that can be looked at, whatever the user wrote."""
    if not name:
        raise InputError(f"[data] {key} is empty; name data", public="no data are named")
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"[data] {key} = {shortened(name)}: no path that can be read ({error}); correct it",
            public="no path that can be read",
        ) from None
    return path


def _source(name: str) -> Source:
    path = _path(name, "name")
    if path.is_dir():
        files, stated = files_by_split(path), _stated_label_names(path)
        splits = {s: partial(_read_files, found, path, stated) for s, found in files.items()}
        return Source(name, splits, stated, files)
    if path.is_file():
        stated = _stated_label_names(path.parent)
        splits = {"train": partial(_read_files, [path], path, stated)}
        return Source(name, splits, stated, {"train": [path]})
    if name != str(path) or format_of(path) or not re.fullmatch(r"[\w.-]+/[\w.-]+(:.+)?", name):
        raise InputError(
            f"[data] name = {name!r}: no such file or folder (looked in {Path.cwd()}); correct the "
            "path, or name 'stdlib-docs' or a hub id (owner/name)",
            public="no such file or folder",
        )
    hub = load_hub(name)
    names = hub_label_names(hub, next(iter(hub)))
    tables = {s: partial(_read_hub, hub, name, s, names) for s in hub}
    return Source(name, tables, names)


def _read_files(paths: list[Path], source: Path, stated: Sequence[str] | None) -> Table:
    return read_table(chain.from_iterable(map(read_rows, paths)), str(source), stated or ())


def _read_hub(hub: dict[str, Any], name: str, split: str, stated: Sequence[str] | None) -> Table:
    return read_table(hub_rows(hub, name, split), f"{name}[{split}]", stated or ())


def _eval_file(eval: str, source: Source) -> tuple[list[Path], Callable[[], Table]]:
    path = _path(eval, "eval")
    if not path.is_file():
        raise InputError(
            f"[data] eval = {eval!r}: neither a file nor a split of {source.name!r} "
            f"(it has {listed(source.splits)})"
        )
    return [path], partial(_read_files, [path], path, source.label_names)


def _stated_label_names(folder: Path) -> list[str] | None:
    path = folder / "meta.json"
    if not path.is_file():
        return None
    text = read_text(path, "a JSON file", max_bytes=_MAX_META_BYTES)
    meta = parse_json(text, str(path), "correct it or take it away")
    names = meta.get("label_names") if isinstance(meta, dict) else None
    if names is not None and not (
        isinstance(names, list)
        and all(isinstance(name, str) and name.strip() == name != "" for name in names)
        and len(set(names)) == len(names)
        and not any(map(broken_character, names))
    ):
        what = "label_names must be a list of different strings, without spaces around them"
        raise InputError(f"{path}: {what}", public=what)
    return names


def load_training(name: str, label_names: Sequence[str] | None) -> Examples:
    """Return all examples of a data file or folder as training examples.

    Args:
        name: a data file, or a folder with one file or a "train" split.
        label_names: the classes as the server numbers them; None where there are no labels.

    Raises:
        InputError: as `load_data`; or a label that the server does not have.
    """
    source = _source(name)
    table = source.splits[train_split(source.splits, name)]()
    if label_names is None:
        return to_examples(table, {}, [])
    if not table.label:
        what = "examples without labels, where the server's experiment needs them"
        raise InputError(f"{table.places[0]}: {what}", public=what)
    numbers = source.label_names or label_names
    codes: Codes = {n: c for c, n in enumerate(label_names)}
    for value in {v for v in table.label or () if isinstance(v, int)}:
        # An integer is an index into the names that the source states; where it states none it is
        # a name itself, or else an index into the server's.
        stated = source.label_names is not None or str(value) not in codes
        known = numbers[value] if stated and 0 <= value < len(numbers) else str(value)
        if known in codes:
            codes[value] = codes[known]
    return to_examples(table, codes, label_names)
