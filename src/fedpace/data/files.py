"""Read the rows of a data file: JSONL, CSV, Parquet or plain text, gzipped or not.

A row is a dictionary from column to value, together with the place it came from, "file:line", so
that whoever finds fault with it can say where. What the columns mean is the business of `rows`.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from fedpace.core.errors import InputError, MissingExtraError

Row = tuple[str, dict[str, object]]
"""Where a row stands, and its columns."""

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
}
"""Suffix to format; each but Parquet may be followed by ".gz"."""


def format_of(path: Path) -> str | None:
    """Return the format of a file by its name, None where it is no data file.

    Example:
        >>> format_of(Path("train.jsonl.gz")), format_of(Path("README.md"))
        ('jsonl', None)
    """
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    found = FORMATS.get(name.suffix.lower())
    return None if found == "parquet" and name != path else found


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of one data file, each with its place.

    Blank lines in JSONL are passed over. Plain text is cut into passages at blank lines and at
    lines that hold nothing but ``<|endoftext|>``; a passage is a row with the column "text".

    Args:
        path: the file; its name says the format, see `FORMATS`.

    Yields:
        (place, row); CSV values are strings, the others are what the file holds.

    Raises:
        InputError: an unknown format, or a file that is not what its name says; the message names
            file and line.
    """
    readers = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet, "text": _passages}
    name = format_of(path)
    if name is None:
        raise InputError(
            f"{path}: not a known data format; known are {', '.join(FORMATS)}, "
            "and all but .parquet with .gz"
        )
    try:
        yield from readers[name](path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); is it whole and readable?") from error


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield f"{path}:{number}", line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}:{number}: not UTF-8 (byte {error.object[error.start]:#04x} at column "
                    f"{error.start + 1}); save the file as UTF-8"
                ) from None


def _jsonl(path: Path) -> Iterator[Row]:
    for place, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{place}: not JSON ({error.msg} at column {error.colno}); "
                "a JSONL file holds one JSON object a line"
            ) from None
        if not isinstance(row, dict):
            raise InputError(f"{place}: a JSON {type(row).__name__}; every line must be an object")
        yield place, row


def _csv(path: Path) -> Iterator[Row]:
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    columns: list[str] = []
    try:
        for values in reader:
            place = f"{path}:{reader.line_num}"
            if not values:
                continue
            if not columns:
                columns = values
                if twice := [name for name in columns if columns.count(name) > 1]:
                    raise InputError(f"{place}: column {twice[0]!r} stands twice; rename one")
            elif len(values) != len(columns):
                raise InputError(
                    f"{place}: {len(values)} values under {len(columns)} columns "
                    f"({', '.join(columns)}); put double quotes around values with commas"
                )
            else:
                yield place, dict(zip(columns, values, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV ({error})") from None


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "lora") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: not Parquet ({error})") from None


def _passages(path: Path) -> Iterator[Row]:
    start = ""
    passage: list[str] = []
    for place, line in _lines(path):
        if line.strip() in ("", "<|endoftext|>"):
            if passage:
                yield start, {"text": "\n".join(passage)}
            start, passage = "", []
        else:
            start = start or place
            passage.append(line.rstrip())
    if passage:
        yield start, {"text": "\n".join(passage)}
