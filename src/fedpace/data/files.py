"""Read the rows of a data file: JSONL, CSV, Parquet or plain text, gzipped or not.

A row is a dictionary from column to value, together with the place it came from, "file:line", so
that whoever finds fault with it can say where. What the columns mean is the business of `rows`.
"""

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from fedpace.core.errors import InputError, MissingExtraError
from fedpace.core.text_files import csv_rows, decoded_lines, listed, recognised, shortened

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

_UNPACKED_BYTES = 2**24
"""So much a packed file may hold however small it is."""
_BOMB = "unpacks to more than 100 times its size; unpack it, if it is what it should be"


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
        known = f"not a known data format; known are {', '.join(FORMATS)}"
        raise InputError(f"{path}: {known}, and all but .parquet with .gz", public=known)
    try:
        yield from readers[name](path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}){_by_its_content(path)}; is it whole and readable?",
            public=f"a file cannot be read ({type(error).__name__})",
        ) from error


def _lines(path: Path, expected: str) -> Iterator[tuple[str, str]]:
    if path.suffix.lower() != ".gz":
        with path.open("rb") as stream:
            for number, line in decoded_lines(stream, path, expected):
                yield f"{path}:{number}", line
        return
    # What unpacks to a hundred times its size is no text but made to fill the memory.
    most, unpacked = max(_UNPACKED_BYTES, 100 * path.stat().st_size), 0
    with gzip.open(path) as packed:
        for number, line in decoded_lines(cast(BinaryIO, packed), path, expected):
            unpacked += len(line)
            if unpacked > most:
                raise InputError(f"{path}:{number}: {_BOMB}", public=_BOMB)
            yield f"{path}:{number}", line


def _jsonl(path: Path) -> Iterator[Row]:
    for place, line in _lines(path, "JSONL"):
        if not line.strip():
            continue
        row = parse_json(line, place, "a JSONL file holds one JSON object a line")
        if not isinstance(row, dict):
            found = type(row).__name__
            raise InputError(
                f"{place}: a JSON {found}; every line must be an object",
                public=f"a line is a JSON {found}, not an object",
            )
        yield place, row


def parse_json(text: str, place: str, remedy: str) -> object:
    """Return the value of a JSON text.

    Raises:
        InputError: it is none, a key stands twice, it is nested too deeply, or a number has too
            many digits.
    """
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{place}: not JSON ({error.msg} at column {error.colno}); {remedy}",
            public="a text is not JSON",
        ) from None
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        what = "an integer of thousands of digits" if what.startswith("Exceeds") else what
        raise InputError(
            f"{place}: not JSON that can be read ({what}); {remedy}",
            public="a text is not JSON that can be read",
        ) from None


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"key {shortened(twice)} stands twice; rename or remove one")
    return found


def _csv(path: Path) -> Iterator[Row]:
    reader = csv_rows(line for _, line in _lines(path, "CSV"))
    columns: list[str] = []
    try:
        for values in reader:
            place = f"{path}:{reader.line_num}"
            if not values:
                continue
            if not columns:
                columns = values
                if len(twice := Counter(columns)) < len(columns):
                    raise InputError(
                        f"{place}: column {shortened(twice.most_common(1)[0][0])} stands twice; "
                        "rename one",
                        public="a column stands twice",
                    )
            elif len(values) != len(columns):
                raise InputError(
                    f"{place}: {len(values)} values under {len(columns)} columns "
                    f"({listed(columns)}); put double quotes around values with commas",
                    public=f"a row of {len(values)} values under {len(columns)} columns",
                )
            else:
                yield place, dict(zip(columns, values, strict=True))
    except csv.Error as error:
        raise InputError(
            f"{path}:{reader.line_num}: not CSV ({error})", public="a text is not CSV"
        ) from None


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "lora") from None
    # Few bytes may stand for many: a dictionary of one long text, a column of one value.
    most, unpacked, number = max(_UNPACKED_BYTES, 100 * path.stat().st_size), 0, 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                unpacked += batch.nbytes
                if unpacked > most:
                    raise InputError(f"{path}: row {number}: {_BOMB}", public=_BOMB)
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except InputError:
        raise
    except Exception as error:  # of many kinds, where the file is damaged
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{path}: not Parquet that can be read ({shortened(why, 120)[1:-1]})"
            f"{_by_its_content(path)}",
            public="a file is not Parquet that can be read",
        ) from None


def _by_its_content(path: Path) -> str:
    """What a file is by its first bytes, where its name says otherwise."""
    with suppress(OSError), path.open("rb") as stream:
        start = stream.read(64)
        if found := recognised(start):
            named = {"gzip": ".gz", "Parquet": ".parquet"}.get(found[0])
            return "" if path.suffix.lower() == named else f"; it is {found[0]}: {found[1]}"
        if start.isascii() and start:
            return "; it is text: name it .jsonl, .csv or .txt"
    return ""


def _is_json_object(line: str) -> bool:
    try:
        return line.lstrip().startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _passages(path: Path) -> Iterator[Row]:
    start = ""
    passage: list[str] = []
    first = True
    for place, line in _lines(path, "plain text"):
        first, at_start = first and not line.strip(), first
        if at_start and _is_json_object(line):
            raise InputError(
                f"{place}: JSON in a file of plain text; name it .jsonl",
                public="JSON in a file of plain text",
            )
        if line.strip() in ("", "<|endoftext|>"):
            if passage:
                yield start, {"text": "\n".join(passage)}
            start, passage = "", []
        else:
            start = start or place
            passage.append(line.rstrip())
    if passage:
        yield start, {"text": "\n".join(passage)}
