"""TOML as users write it: a table from a file, single keys from the command line, paths in it."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpace.core.errors import InputError
from fedpace.core.text_files import broken_character, read_text, shortened
from fedpace.data.files import format_of
from fedpace.data.load import HOLDOUT, STDLIB_DOCS
from fedpace.data.splits import EVAL, TRAIN

MAX_BYTES = 2**20
"""No experiment, scenario or suite is longer."""

TEMPLATE_NAMES = frozenset({"model", "plain", "chatml", "alpaca"})
"""What `[data] chat_template` may name beside a file."""

_PATHS = {
    ("model", "name"): frozenset({"minilm", "smollm2"}),
    ("data", "name"): frozenset({STDLIB_DOCS}),
    ("data", "eval"): frozenset({HOLDOUT, *TRAIN, *EVAL}),
    ("data", "chat_template"): TEMPLATE_NAMES,
    ("network", "clients"): frozenset(),
    ("network", "gain_trace"): frozenset(),
    ("lora", "start_from"): frozenset(),
}
"""Keys that may hold a path, and the words that mean something else there whatever lies beside."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file into a table.

    Raises:
        InputError: it cannot be read, or is no TOML.
    """
    return toml_table(read_text(path, "a TOML file", max_bytes=MAX_BYTES), str(path))


def toml_table(text: str, where: str) -> dict[str, Any]:
    """Read TOML into a table.

    Args:
        text: TOML.
        where: it came from, for messages.

    Raises:
        InputError: it is no TOML, nested too deeply, or a number has thousands of digits.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not valid TOML: {error}") from None
    except (ValueError, RecursionError) as error:
        nested = isinstance(error, RecursionError)
        what = "nested too deeply" if nested else f"an integer of thousands of digits{_line(text)}"
        raise InputError(f"{where} cannot be read: {what}; correct it") from None


def _line(text: str) -> str:
    """Where the first integer stands that is too long to be one."""
    lines = text.splitlines()
    found = (n for n, line in enumerate(lines, 1) if sum(map(str.isdigit, line)) > 4000)
    return next((f" in line {n}" for n in found), "")


def set_key(table: dict[str, Any], override: str) -> None:
    """Apply one ``--set section.key=value`` to a table.

    Args:
        table: changed in place.
        override: the value in TOML notation, or a plain word for text.

    Raises:
        InputError: not of that form.
    """
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or len(parts) > 2:
        raise InputError(
            f"--set {shortened(override)} is not of the form section.key=value, "
            "e.g. training.rounds=20"
        )
    try:
        found = tomllib.loads(f"value = {text}")
        value = found["value"] if len(found) == 1 else text.strip()
    except tomllib.TOMLDecodeError:
        value = text.strip()
    except (ValueError, RecursionError):
        raise InputError(f"--set {shortened(override)}: no value that can be read") from None
    target = table
    if len(parts) == 2:
        target = table.setdefault(parts[0], {})
        if not isinstance(target, dict):
            raise InputError(f"--set {shortened(override)}: {parts[0]} is a value, not a section")
    target[parts[-1]] = value


def anchor(table: dict[str, Any], folder: Path) -> None:
    """Make the relative paths of an experiment file independent of the working folder.

    A hub id looks like a relative path: what exists beside the file is a path. Words with a
    meaning of their own are none, also where a folder of that name exists, nor is evaluation data
    that is no data file.
    """
    for (section, key), words in _PATHS.items():
        value = table.get(section, {}).get(key) if isinstance(table.get(section), dict) else None
        if not isinstance(value, str) or not value or value in words or value.lower() in words:
            continue
        if (section, key) == ("data", "eval") and format_of(Path(value)) is None:
            continue
        try:
            beside = folder / Path(value)
            if not Path(value).is_absolute() and beside.exists():
                table[section][key] = str(beside.resolve())
        except (OSError, ValueError):  # what no file system takes is no path
            continue


def refuse_broken_text(value: object, where: str) -> None:
    """Refuse text that cannot be written as UTF-8, wherever it stands in a table.

    Raises:
        InputError: with the place.
    """
    if isinstance(value, str) and (half := broken_character(value)):
        raise InputError(
            f"{where}: {shortened(value)} holds {half}, which cannot be written as UTF-8; "
            "correct it"
        )
    if isinstance(value, dict):
        for key, inner in value.items():
            refuse_broken_text(str(key), where)
            refuse_broken_text(inner, f"{where}: {key}")
    if isinstance(value, list):
        for inner in value:
            refuse_broken_text(inner, where)


def without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table without what has no value, which TOML cannot say."""
    return {
        key: without_none(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None and value != {}
    }
