"""``clients.csv``: one client a line, the columns named as in `ClientProfile`.

Required are ``data_weight``, ``step_seconds`` and one of ``spectral_efficiency`` and ``snr_hz``. A
blank cell of another column means its default. Commas separate, UTF-8, a header line first.
"""

import csv
import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.profile import LINK_COLUMNS, ClientProfile, Clients
from fedpace.core.text_files import csv_rows, decoded_lines, shortened

__all__ = ["read_clients", "write_clients"]

_COLUMNS = {f.name: f.default for f in fields(ClientProfile)}


def read_clients(path: str | PathLike[str]) -> Clients:
    """Read a population.

    Args:
        path: of the CSV file.

    Returns:
        The clients, in the order of the file.

    Raises:
        InputError: the file cannot be read, a column is missing or unknown, or a value is wrong;
            the message names file, line, column, value and remedy.
    """
    file = Path(path)
    header, lines, rows = _read_rows(file)
    columns: dict[str, Any] = {}
    for name, cells in zip(header, zip(*rows, strict=True), strict=True):
        if name in LINK_COLUMNS and not any(cell.strip() for cell in cells):
            continue
        if name == "client_id":
            columns[name] = [cell.strip() for cell in cells]
        else:
            columns[name] = _numbers(file, name, cells, lines)
    if "client_id" in columns and "" in columns["client_id"]:
        line = lines[columns["client_id"].index("")]
        raise InputError(f"{file}, line {line}: client_id is blank; name every client or none")
    try:
        return Clients.from_columns(**columns)
    except InputError as error:
        # Whether the first m lines are in order is monotone in m: bisect for the first bad line.
        good, bad = 0, len(lines)
        while bad - good > 1:
            middle = (good + bad) // 2
            if _fault({name: column[:middle] for name, column in columns.items()}):
                bad = middle
            else:
                good = middle
        fault = _fault({name: column[:bad] for name, column in columns.items()}) or error
        raise InputError(f"{file}, line {lines[bad - 1]}: {fault}") from None


def write_clients(clients: Clients, path: str | PathLike[str]) -> None:
    """Write a population; `read_clients` reads the same numbers.

    Optional columns that hold nothing but their default are left out.

    Args:
        clients: N clients.
        path: of the CSV file; replaced, as a whole, if it exists.

    Raises:
        InputError: the file cannot be written.
    """
    columns = {
        name: column.tolist()
        for name, column in clients.columns().items()
        if name == "client_id" or not np.all(column == _COLUMNS[name])
    }
    part = Path(f"{path}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        part.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); give a path in an existing folder"
        ) from None


def _read_rows(file: Path) -> tuple[list[str], list[int], list[list[str]]]:
    """Return the header, and each row with its line number."""
    lines: list[int] = []
    rows: list[list[str]] = []
    try:
        with file.open("rb") as stream:
            reader = csv_rows(line for _, line in decoded_lines(stream, file, "CSV"))
            header = [name.strip() for name in next(reader, [])]
            _check_header(file, header)
            for row in reader:
                if row:
                    lines.append(reader.line_num)
                    rows.append(row)
                if row and len(row) != len(header):
                    raise InputError(
                        f"{file}, line {reader.line_num}: {len(row)} cells where the header has "
                        f"{len(header)}; leave a cell blank for a default, but keep its comma"
                    )
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}); give the path of a clients.csv"
        ) from None
    except csv.Error as error:
        raise InputError(
            f"{file}, line {reader.line_num}: not CSV ({error}); check quotes and commas"
        ) from None
    if not rows:
        raise InputError(f"{file}: a header and no clients; give at least one line")
    return header, lines, rows


def _check_header(file: Path, header: list[str]) -> None:
    if not any(header):
        raise InputError(f"{file}: the file is empty or its first line is; start with a header")
    for position, name in enumerate(header):
        if name not in _COLUMNS:
            raise InputError(
                f"{file}, line 1: column {shortened(name)} is unknown; rename or remove it"
                f"{_probably(name)}, known are {', '.join(_COLUMNS)}"
            )
        if name in header[:position]:
            raise InputError(f"{file}, line 1: column {name!r} appears twice; remove one")
    missing = [name for name in ("data_weight", "step_seconds") if name not in header]
    if not set(LINK_COLUMNS) & set(header):
        missing.append(" or ".join(LINK_COLUMNS))
    if missing:
        raise InputError(f"{file}, line 1: column {missing[0]} is missing; every client needs it")


def _numbers(file: Path, name: str, cells: tuple[str, ...], lines: list[int]) -> list[float]:
    default = _COLUMNS[name]
    numbers = []
    for line, cell in zip(lines, cells, strict=True):
        try:
            numbers.append(_number(cell))
        except ValueError:
            blank = not cell.strip()
            if blank and default is not None and default is not MISSING:
                numbers.append(default)
                continue
            what = "blank" if blank else shortened(cell)
            raise InputError(
                f"{file}, line {line}: {name} is {what}; it must be a number, with a decimal point"
            ) from None
    return numbers


def _number(cell: str) -> float:
    """The number that a cell writes; what Python alone reads as one is none."""
    if "_" in cell or not cell.isascii():
        raise ValueError
    return float(cell)


def _probably(name: str) -> str:
    close = difflib.get_close_matches(name.lower().replace(" ", "_"), _COLUMNS, n=1)
    return f" (is {close[0]!r} meant?)" if close else ""


def _fault(columns: Mapping[str, Any]) -> InputError | None:
    try:
        Clients.from_columns(**columns)
    except InputError as error:
        return error
    return None
