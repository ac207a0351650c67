"""Read a run folder: settings, clients, plans, records, summary; say what is missing or cut off."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.core.profile import Clients, Floats
from fedpace.core.record import RoundRecord
from fedpace.core.target import Target
from fedpace.reporting.metrics import Plans

FILES = ("experiment.toml", "clients.csv", "plan.json", "rounds.jsonl", "summary.json")
"""What a report needs of a run folder."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a run folder holds; mappings go by method, the first method first."""

    experiment: str
    """experiment.toml as text."""
    clients: Clients
    start_seconds: Floats
    """From the start of a round until the client sends, at full rank, shape (N,)."""
    upload_seconds: Floats
    """To send the full rank alone in the whole band, shape (N,)."""
    plans: Mapping[str, Plans]
    records: Mapping[str, Sequence[RoundRecord]]
    summary: Mapping[str, Any]
    target: Target | None
    notes: Sequence[str]
    """What a reader must know of the folder's state, for people to read."""


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Args:
        folder: as `fedpace run` writes it.

    Raises:
        InputError: not a run folder, a file that is missing or damaged; names file, place, remedy.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that `fedpace run` made")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if len(missing) == len(FILES):
        raise InputError(f"{folder} has none of {', '.join(FILES)}; is it a run folder?")
    if missing:
        raise InputError(
            f"{folder / missing[0]} is missing; if the run was interrupted, finish it with "
            f"`fedpace run --resume {folder}`"
        )
    clients = _clients(folder / "clients.csv")
    summary = read_summary(folder)
    names = list(summary["methods"])
    table = _json(folder / "plan.json")
    records, notes = _records(folder / "rounds.jsonl", names, len(clients))
    # A plan from before newcomers entered is for the first clients alone.
    entered = {n for made in records.values() for record in made for n in record.entered}
    sizes = range(len(clients) - len(entered), len(clients) + 1)
    plans = _plans(table, names, sizes, folder / "plan.json")
    for name in names:
        came = [record for record in records[name] if record.entered]
        if came:
            who = "; ".join(
                f"{', '.join(clients.client_id[list(record.entered)])} in round {record.round + 1}"
                for record in came
            )
            notes.append(f"Clients entered while {name} ran: {who}.")
        counted, found = summary["methods"][name]["rounds"], len(records[name])
        if counted != found:
            notes.append(
                f"summary.json counts {counted} rounds of {name}, rounds.jsonl has {found}; "
                "the figures show the latter."
            )
    return Run(
        experiment=(folder / "experiment.toml").read_text("utf-8"),
        clients=clients,
        start_seconds=_seconds(table, "start_seconds", len(clients), folder / "plan.json"),
        upload_seconds=_seconds(table, "upload_seconds", len(clients), folder / "plan.json"),
        plans=plans,
        records=records,
        summary=summary,
        target=None if summary["target"] is None else Target.parse(summary["target"]),
        notes=notes,
    )


def read_summary(folder: Path) -> Mapping[str, Any]:
    """Read summary.json of a run folder; enough for the table.

    Raises:
        InputError: missing, damaged, or without methods.
    """
    path = folder / "summary.json"
    if not path.is_file():
        raise InputError(f"{path} is missing; is {folder} the folder of a finished run?")
    summary = _json(path)
    for key in ("methods", "speedup", "target", "environment"):
        if key not in summary:
            raise InputError(f"{path} has no {key!r}; the file is not a run's summary")
    if not summary["methods"]:
        raise InputError(f"{path} has no methods; run at least one")
    return summary


def _json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}; restore or rerun") from None
    if not isinstance(table, dict):
        raise InputError(f"{path} holds a {type(table).__name__}, not a table; restore or rerun")
    return table


def _clients(path: Path) -> Clients:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns: dict[str, list[str]] = {name: [] for name in reader.fieldnames or ()}
        for row in reader:
            if None in row or None in row.values():
                raise InputError(
                    f"{path} line {reader.line_num} has not {len(columns)} cells as its header"
                )
            for name, cell in row.items():
                columns[name].append(cell)
    try:
        return Clients.from_columns(**columns)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _plans(
    table: Mapping[str, Any], names: Sequence[str], sizes: range, path: Path
) -> dict[str, Plans]:
    plans: dict[str, Plans] = {}
    for name in names:
        entry = table.get("methods", {}).get(name)
        if entry is None:
            raise InputError(f"{path} has no plan of method {name!r}, summary.json has the method")
        try:
            rows = [(0, entry), *((row["round"], row["plan"]) for row in entry.get("renewals", ()))]
            plans[name] = [(int(first), Plan.from_json(plan)) for first, plan in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: the plan of {name!r} cannot be read: {error!r}") from None
        if any(len(plan) not in sizes for _, plan in plans[name]):
            raise InputError(f"{path}: the plan of {name!r} is not for the {sizes[-1]} clients")
    return plans


def _seconds(table: Mapping[str, Any], key: str, clients: int, path: Path) -> Floats:
    values = np.asarray(table.get("clients", {}).get(key, ()), dtype=np.float64)
    if values.shape != (clients,):
        raise InputError(f"{path}: [clients] {key} has {values.size} entries for {clients} clients")
    return values


def _records(
    path: Path, names: Sequence[str], clients: int
) -> tuple[dict[str, list[RoundRecord]], list[str]]:
    records: dict[str, list[RoundRecord]] = {name: [] for name in names}
    notes = []
    lines = path.read_text("utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            table = json.loads(line)
        except ValueError:
            if number < len(lines):
                raise InputError(f"{path} line {number} is not valid JSON; restore it") from None
            notes.append(
                "The last line of rounds.jsonl is cut off, as when a run is interrupted; "
                "it is left out."
            )
            continue
        try:
            record = RoundRecord.from_json(table)
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} line {number} is no round record: {error!r}") from None
        if any(not 0 <= p.client < clients for p in record.participants):
            raise InputError(f"{path} line {number} names a client outside 0..{clients - 1}")
        if record.method not in records:
            raise InputError(
                f"{path} line {number} is of method {record.method!r}, which summary.json lacks"
            )
        records[record.method].append(record)
    if empty := [name for name in names if not records[name]]:
        raise InputError(f"{path} has no round of method {empty[0]!r}; the run has not begun it")
    return records, notes
