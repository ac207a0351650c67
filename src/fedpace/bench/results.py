"""Results as JSON lines: appended, never changed."""

import json
from pathlib import Path
from typing import Any

from fedpace.core.errors import InputError

Line = dict[str, Any]

_NAMES = ("suite", "digest", "task", "network", "rule", "method", "seed")
"""What makes two lines the same run."""


def read_results(path: Path) -> list[Line]:
    """Return the lines of a results file; none if there is no file.

    A last line that a kill cut off is left out: its run is made again.

    Raises:
        InputError: it is no file, or another line is damaged.
    """
    if not path.exists():
        return []
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the file of the results, such as {path}.jsonl")
    found = []
    # What follows the last line feed is nothing, or a line that was not written to its end.
    for number, text in enumerate(path.read_text("utf-8").split("\n")[:-1], start=1):
        try:
            line = json.loads(text)
            identity(line)
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path} line {number} is no result of a suite; restore it, or take it out and its "
                "run is made again"
            ) from None
        found.append(line)
    return found


def append(path: Path, line: Line) -> None:
    """Append one line; lines are never changed, but for one that a kill cut off, which goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.write((json.dumps(line) + "\n").encode())


def identity(line: Line) -> str:
    """Return what makes two lines the same run."""
    return "|".join(str(line[name]) for name in _NAMES)
