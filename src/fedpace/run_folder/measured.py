"""testbed.jsonl: what the virtual clock predicted of each round beside what was measured."""

import json
from pathlib import Path

from fedpace.core.errors import InputError
from fedpace.core.times import RoundTimes
from fedpace.run_folder.atomic import write_text
from fedpace.run_folder.schema import TESTBED


def add_times(folder: Path, times: RoundTimes) -> None:
    """Add a round; one that is played again after an interruption replaces itself and what follows.

    Args:
        folder: of the run.
        times: of the round that has just ended.
    """
    before = read_times(folder)
    kept = [t for t in before if t.method != times.method or t.round < times.round]
    if len(kept) < len(before) or not (folder / TESTBED).exists():
        write_text(folder / TESTBED, "".join(map(_line, [*kept, times])))
        return
    with (folder / TESTBED).open("a", encoding="utf-8") as file:
        file.write(_line(times))


def read_times(folder: Path) -> list[RoundTimes]:
    """Read testbed.jsonl, none where it is missing; a last line cut off by a kill is left out.

    Raises:
        InputError: another line is damaged.
    """
    path = folder / TESTBED
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text("utf-8").split("\n")[:-1], start=1):
        try:
            found.append(RoundTimes.from_json(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InputError(
                f"{path} line {number} is not what fedpace testbed writes; restore it, or remove "
                "the file: the report then has no figure of it"
            ) from None
    return found


def _line(times: RoundTimes) -> str:
    return json.dumps(times.to_json(), allow_nan=False) + "\n"
