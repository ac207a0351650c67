"""Results as JSON lines: appended, never changed."""

import json
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def read_results(path: Path) -> list[Line]:
    """Return the lines of a results file; none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]


def append(path: Path, line: Line) -> None:
    """Append one line; lines are never changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def identity(line: Line) -> str:
    """Return what makes two lines the same run."""
    names = ("suite", "digest", "task", "network", "rule", "method", "seed")
    return "|".join(str(line[name]) for name in names)
