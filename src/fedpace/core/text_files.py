"""Text files as users make them: UTF-8 with or without its mark; what is none is named.

Readers of data, clients and experiment files share this: whatever a file is, it means the same in
each of them.
"""

import csv
import math
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fedpace.core.errors import InputError

if TYPE_CHECKING:
    import _csv

MAX_LINE_BYTES = 2**24
"""Longest line that is read; a longer one is no line of text, and would not fit in memory."""

_AS_UTF8 = "save the file as UTF-8"
_SIGNATURES = (
    (b"\x1f\x8b", "gzip", "add .gz to its name, or unpack it"),
    (b"PAR1", "Parquet", "name it .parquet"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "unpack it, or save it as CSV"),
    (b"\xff\xfe\x00\x00", "UTF-32 text", _AS_UTF8),
    (b"\x00\x00\xfe\xff", "UTF-32 text", _AS_UTF8),
    (b"\xff\xfe", "UTF-16 text", _AS_UTF8),
    (b"\xfe\xff", "UTF-16 text", _AS_UTF8),
    (b"BZh", "bzip2", "unpack it"),
    (b"\xfd7zXZ\x00", "xz", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "Zstandard", "unpack it"),
    (b"ARROW1", "Arrow", "save it as Parquet"),
    (b"\xff\xff\xff\xff", "an Arrow stream", "save it as Parquet"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save it as CSV"),
    (b"%PDF", "PDF", "give the text"),
    (b"\x80\x04\x95", "a pickle", "save it as JSONL, CSV or Parquet"),
    (b"GGUF", "a GGUF model", "name it under [model]"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run git lfs pull"),
)


def recognised(start: bytes) -> tuple[str, str] | None:
    """Return what a file that begins so is, and the remedy; None for what may be text.

    Example:
        >>> recognised(b"PAR1...")
        ('Parquet', 'name it .parquet')
    """
    for signature, name, remedy in _SIGNATURES:
        if start.startswith(signature):
            return name, remedy
    # Text without a mark in UTF-16: every other byte of plain letters is zero.
    pairs = [start[i : i + 2] for i in range(0, min(len(start), 16) - 1, 2)]
    if len(pairs) >= 4 and all((not pair[0]) != (not pair[1]) for pair in pairs):
        return "UTF-16 text", _AS_UTF8
    return None


def refuse_other_files(path: Path, start: bytes, expected: str) -> None:
    """Refuse a file whose first bytes say that it is no text.

    Args:
        path: for the message.
        start: its first bytes, 32 or more where there are.
        expected: what it should be, e.g. "CSV".

    Raises:
        InputError: with what it is, and the remedy.
    """
    if found := recognised(start):
        raise InputError(
            f"{path}: by its first bytes this is {found[0]}, not {expected}; {found[1]}",
            public=f"a file that should be {expected} is {found[0]}",
        )


def decoded_lines(stream: BinaryIO, path: Path, expected: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a binary stream, each with its number from 1 and its line end.

    Args:
        stream: at its beginning.
        path: for messages.
        expected: what the file should be, e.g. "CSV".

    Raises:
        InputError: no text, not UTF-8, or a line above `MAX_LINE_BYTES`.
    """
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            refuse_other_files(path, line[:32], expected)
        if len(line) > MAX_LINE_BYTES:
            raise InputError(
                f"{path}:{number}: a line of more than {MAX_LINE_BYTES / 2**20:.0f} MiB; "
                f"is this {expected}, and are its line ends there?",
                public="a line that is too long to be one",
            )
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}:{number}: not UTF-8 (byte {error.object[error.start]:#04x} at column "
                f"{error.start + 1}); {_AS_UTF8}",
                public="text that is not UTF-8",
            ) from None


def csv_rows(lines: Iterable[str]) -> "_csv.Reader":
    """Return a strict reader of CSV whose fields may be as long as a line."""
    # The standard library's own limit, 128 KiB, is under the length of documents.
    csv.field_size_limit(max(MAX_LINE_BYTES, csv.field_size_limit()))
    return csv.reader(lines, strict=True)


def read_text(path: Path, expected: str, *, max_bytes: int) -> str:
    """Return a whole text file, without its byte order mark.

    Args:
        path: of the file.
        expected: what it should be, e.g. "a TOML file".
        max_bytes: a longer file is refused.

    Raises:
        InputError: it is not there, cannot be read, is too long, or is no UTF-8 text.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give the path of {expected}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; give the path of {expected}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} cannot be read ({why}); give the path of {expected}") from None
    if len(content) > max_bytes:
        raise InputError(f"{path} is longer than {max_bytes:,} bytes; give the path of {expected}")
    refuse_other_files(path, content[:32], expected)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path} is not UTF-8 text (line {line}: {error.reason}); save it as UTF-8"
        ) from None


def broken_character(text: str) -> str | None:
    r"""Return the half of a surrogate pair in a text, as an escape; None where there is none.

    Such a text cannot be written as UTF-8. JSON's escapes can make it, where an emoji was cut.

    Example:
        >>> broken_character("cut \ud83d"), broken_character("\U0001f600")
        ('\\ud83d', None)
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"\\u{ord(text[error.start]):04x}"
    return None


def shortened(value: object, length: int = 60) -> str:
    """Return a value as a message shows it: at most `length` characters of it.

    Example:
        >>> shortened("a" * 1000, 10)
        "'aaaaaaaaa..."
        >>> shortened(-(10**5000))
        'an integer of about 5001 digits'
    """
    if isinstance(value, int) and value.bit_length() > 4096:
        return f"an integer of about {int(value.bit_length() * math.log10(2)) + 1} digits"
    try:
        text = repr(value[:length] if isinstance(value, str) else value)
    except (RecursionError, ValueError):  # nested without end, or long integers within
        return f"a {type(value).__name__}"
    cut = len(text) > length or (isinstance(value, str) and len(value) > length)
    return f"{text[:length]}..." if cut else text


def listed(names: Iterable[object], most: int = 20) -> str:
    """Return names as a message lists them, at most so many.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        'a, b, ...'
    """
    shown = list(islice(names, most + 1))
    text = ", ".join(shortened(str(name))[1:-1] for name in shown[:most])
    return text + (", ..." if len(shown) > most else "")
