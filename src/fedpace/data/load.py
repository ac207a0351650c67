"""Training and evaluation examples by name: the embedded set, a file, a folder, or a hub id."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.data.files import format_of, read_rows
from fedpace.data.hub import hub_label_names, hub_rows, load_hub
from fedpace.data.rows import Table, codes_of, read_table, to_examples
from fedpace.data.split import hold_out
from fedpace.data.stdlib_docs import stdlib_docs

STDLIB_TEST_SHARE = 0.15
TEST_SHARE = 0.10
"""Held out where a source has no evaluation data of its own."""

EVAL_SPLITS = ("test", "validation", "valid", "dev", "eval")
"""Which split is evaluated on where none is named: the first of these that is there."""


@dataclass(frozen=True, slots=True)
class Source:
    """Named splits of one data set, read when asked for."""

    name: str
    splits: Mapping[str, Callable[[], Table]]
    label_names: Sequence[str] | None


HOLDOUT = "holdout"
"""Evaluate on a part of the training data: for tuning, which must not see the test data."""


def load_data(name: str, *, eval: str | None = None, seed: int) -> tuple[Examples, Examples]:
    """Return training and evaluation examples.

    Args:
        name: "stdlib-docs" (the docstrings of this Python's standard library), a data file, a
            folder of them, or a hub id ("owner/name" or "owner/name:config").
        eval: a data file, or a split of `name`. Without, the split "test" or "validation" where
            `name` has one; else 10 % of the examples are held out (15 % of "stdlib-docs").
            "holdout" tunes without the test data: 10 % of the training examples are held out.
        seed: the run's seed; it decides what is held out.

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
    if name == "stdlib-docs":
        return _load_stdlib_docs(eval, seed)
    source = _source(name)
    train_split = _train_split(source)
    table = source.splits[train_split]()
    codes, names = codes_of(table.label, source.label_names)
    train = to_examples(table, codes, names)
    split = eval or next((s for s in EVAL_SPLITS if s in source.splits and s != train_split), None)
    if split is None:
        return hold_out(train, TEST_SHARE, seed)
    if split == train_split:
        raise InputError(f"[data] eval = {eval!r} is what is trained on; name other data")
    held = source.splits[split]() if split in source.splits else _eval_file(split, source)
    if held.kind != table.kind:
        raise InputError(
            f"[data] eval: {held.places[0]} is of kind {held.kind!r}, the training data of kind "
            f"{table.kind!r}; both must be of one kind"
        )
    return train, to_examples(held, codes, names)


def _load_stdlib_docs(eval: str | None, seed: int) -> tuple[Examples, Examples]:
    if eval not in (None, "test"):
        raise InputError(
            f"[data] eval = {eval!r}: 'stdlib-docs' is evaluated on docstrings it holds out; "
            "leave eval away"
        )
    return hold_out(stdlib_docs(), STDLIB_TEST_SHARE, seed)


def _source(name: str) -> Source:
    path = Path(name).expanduser()
    if path.is_dir():
        files = _files_by_split(path)
        splits = {s: partial(_read_files, found, path) for s, found in files.items()}
        return Source(name, splits, _stated_label_names(path))
    if path.is_file():
        splits = {"train": partial(_read_files, [path], path)}
        return Source(name, splits, _stated_label_names(path.parent))
    if format_of(path) or not re.fullmatch(r"[\w.-]+/[\w.-]+(:.+)?", name):
        raise InputError(
            f"[data] name = {name!r}: no such file or folder (looked in {Path.cwd()}); correct the "
            "path, or name 'stdlib-docs' or a hub id (owner/name)"
        )
    hub = load_hub(name)
    tables = {s: partial(_read_hub, hub, name, s) for s in hub}
    return Source(name, tables, hub_label_names(hub, next(iter(hub))))


def _read_files(paths: list[Path], source: Path) -> Table:
    return read_table(chain.from_iterable(map(read_rows, paths)), str(source))


def _read_hub(hub: dict[str, Any], name: str, split: str) -> Table:
    return read_table(hub_rows(hub, name, split), f"{name}[{split}]")


def _files_by_split(folder: Path) -> dict[str, list[Path]]:
    """Group data files by stem; shards of one split (train-00000-of-00002) go together."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and format_of(path):
            stem = re.sub(r"-\d+-of-\d+$", "", path.name.split(".")[0])
            found.setdefault(stem, []).append(path)
    if not found:
        what = "no data file here (.jsonl, .csv, .parquet, .txt)"
        raise InputError(f"[data] {folder}: {what}", public=what)
    for stem, paths in found.items():
        if len({path.name.split(".")[0] for path in paths}) < len(paths):
            names = ", ".join(path.name for path in paths)
            raise InputError(f"[data] {folder}: {names} are all {stem!r}; keep one of them")
    return found


def _train_split(source: Source) -> str:
    if "train" in source.splits:
        return "train"
    if len(source.splits) == 1:
        return next(iter(source.splits))
    raise InputError(
        f"[data] name = {source.name!r} has no 'train' among {', '.join(source.splits)}; "
        "name the file to train on"
    )


def _eval_file(eval: str, source: Source) -> Table:
    path = Path(eval).expanduser()
    if not path.is_file():
        raise InputError(
            f"[data] eval = {eval!r}: neither a file nor a split of {source.name!r} "
            f"(it has {', '.join(source.splits)})"
        )
    return _read_files([path], path)


def _stated_label_names(folder: Path) -> list[str] | None:
    path = folder / "meta.json"
    if not path.is_file():
        return None
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); correct it or take it away") from None
    names = meta.get("label_names") if isinstance(meta, dict) else None
    if names is not None and not (
        isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and len(set(names)) == len(names)
    ):
        raise InputError(f"{path}: label_names must be a list of different strings")
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
    table = source.splits[_train_split(source)]()
    if label_names is None:
        return to_examples(table, {}, [])
    if not table.label:
        what = "examples without labels, where the server's experiment needs them"
        raise InputError(f"{table.places[0]}: {what}", public=what)
    numbers = source.label_names or label_names
    codes: dict[int | str, int] = {n: c for c, n in enumerate(label_names)}
    for value in {v for v in table.label or () if isinstance(v, int)}:
        # An integer is an index into names that a source states, else a name itself.
        stated = source.label_names is not None and 0 <= value < len(numbers)
        known = numbers[value] if stated else str(value)
        if known in codes:
            codes[value] = codes[known]
    return to_examples(table, codes, label_names)
