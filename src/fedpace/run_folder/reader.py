"""Read a run folder: settings, clients, plans, records, summary; say what is missing or cut off."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.plan import Plan, Plans
from fedpace.core.profile import Floats
from fedpace.core.record import RoundRecord
from fedpace.core.target import Target
from fedpace.core.text_files import shortened
from fedpace.run_folder.measured import read_times
from fedpace.run_folder.schema import CLIENTS, EXPERIMENT, FILES, PLAN, ROUNDS, SUMMARY, Run
from fedpace.wireless.clients_file import read_clients


def check_run_folder(folder: Path) -> None:
    """Raise InputError where a folder has no file of a run."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that `fedpace run` made")
    if not any((folder / name).is_file() for name in FILES):
        raise InputError(f"{folder} has none of {', '.join(FILES)}; is it a run folder?")


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Args:
        folder: as `fedpace run` writes it.

    Raises:
        InputError: not a run folder, a file that is missing or damaged; names file, place, remedy.
    """
    check_run_folder(folder)
    with _readable(folder):
        return _read(folder)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever wrong types and damaged text raise into one line that names the place."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError,
            RecursionError) as error:  # fmt: skip
        why = next(iter(str(error).splitlines()), "")[:200]
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {why}); restore or rerun"
        ) from None


def _read(folder: Path) -> Run:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder / missing[0]} is missing; if the run was interrupted, finish it with "
            f"`fedpace run --resume {folder}`"
        )
    clients = read_clients(folder / CLIENTS)
    summary = read_summary(folder)
    names = list(summary["methods"])
    table = _json(folder / PLAN)
    records, notes = _records(folder / ROUNDS, names, len(clients))
    # A plan from before newcomers entered is for the first clients alone.
    entered = {n for made in records.values() for record in made for n in record.entered}
    sizes = range(len(clients) - len(entered), len(clients) + 1)
    plans = _plans(table, names, sizes, folder / PLAN)
    for name in names:
        came = [record for record in records[name] if record.entered]
        if came:
            who = "; ".join(
                f"{', '.join(clients.client_id[list(record.entered)])} in round {record.round + 1}"
                for record in came
            )
            notes.append(f"Clients entered while {name} ran: {who}.")
        notes += _divergence(name, records[name])
        counted, found = summary["methods"][name]["rounds"], len(records[name])
        if counted != found:
            notes.append(
                f"summary.json counts {counted} rounds of {name}, rounds.jsonl has {found}; "
                "the figures show the latter."
            )
    return Run(
        experiment=(folder / EXPERIMENT).read_text("utf-8"),
        clients=clients,
        start_seconds=_seconds(table, "start_seconds", len(clients), folder / PLAN),
        upload_seconds=_seconds(table, "upload_seconds", len(clients), folder / PLAN),
        plans=plans,
        records=records,
        summary=summary,
        target=None if summary["target"] is None else Target.parse(summary["target"]),
        notes=notes,
        times=read_times(folder),
    )


def read_records(folder: Path) -> list[RoundRecord]:
    """Read rounds.jsonl, none where it is missing; a last line cut off by a kill is left out.

    Raises:
        InputError: another line is damaged.
    """
    path = folder / ROUNDS
    return _lines(path)[0] if path.exists() else []


def read_summary(folder: Path) -> Mapping[str, Any]:
    """Read summary.json of a run folder; enough for the table.

    Raises:
        InputError: missing, damaged, or without methods.
    """
    path = folder / SUMMARY
    if not path.is_file():
        raise InputError(f"{path} is missing; is {folder} the folder of a finished run?")
    summary = _json(path)
    for key in ("methods", "speedup", "target", "environment"):
        if key not in summary:
            raise InputError(f"{path} has no {key!r}; the file is not a run's summary")
    methods = summary["methods"]
    if not methods:
        raise InputError(f"{path} has no methods; run at least one")
    if not isinstance(methods, dict) or not all(isinstance(m, dict) for m in methods.values()):
        raise InputError(f"{path}: methods is no table of tables; restore or rerun")
    return summary


def _json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}; restore or rerun") from None
    if not isinstance(table, dict):
        raise InputError(f"{path} holds a {type(table).__name__}, not a table; restore or rerun")
    return table


def _divergence(name: str, records: Sequence[RoundRecord]) -> list[str]:
    """Say where a method diverged."""
    seen = [record for record in records if record.diverged is not None]
    notes = [
        f"{name} stepped back in round {record.round + 1}, to the adapter of round "
        f"{record.stepped_back_to}: {record.diverged}."
        for record in seen
        if record.stepped_back_to is not None
    ]
    if seen and seen[-1].stepped_back_to is None:
        notes.append(
            f"{name} diverged at round {seen[-1].round + 1}: {seen[-1].diverged}. Its adapter is "
            "the one before that round; try smaller learning rates, or [training] on_divergence = "
            '"step-back".'
        )
    return notes


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
    """Return the records of a finished run by method, and what is to be said of them."""
    records: dict[str, list[RoundRecord]] = {name: [] for name in names}
    found, cut_off = _lines(path)
    for number, record in enumerate(found, start=1):
        if any(not 0 <= p.client < clients for p in record.participants):
            raise InputError(f"{path} line {number} names a client outside 0..{clients - 1}")
        if record.method not in records:
            raise InputError(
                f"{path} line {number} is of method {record.method!r}, which summary.json lacks"
            )
        records[record.method].append(record)
    if empty := [name for name in names if not records[name]]:
        raise InputError(f"{path} has no round of method {empty[0]!r}; the run has not begun it")
    notes = [
        "The last line of rounds.jsonl is cut off, as when a run is interrupted; it is left out."
    ]
    return records, notes if cut_off else []


def _lines(path: Path) -> tuple[list[RoundRecord], bool]:
    """Return the records in a file, and whether its last line is cut off."""
    records: list[RoundRecord] = []
    with _readable(path):
        lines = path.read_text("utf-8").split("\n")
    # What follows the last line feed is nothing, or a line that was not written to its end.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            records.append(RoundRecord.from_json(json.loads(line)))
            _check(records[-1])
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} line {number} is no round record: {shortened(error, 200)}"
            ) from None
        except (ValueError, RecursionError, OverflowError):
            raise InputError(f"{path} line {number} is not valid JSON; restore it") from None
    return records, lines[-1] != ""


def _check(record: RoundRecord) -> None:
    """Raise TypeError where a value of a record is not of its type."""
    numbers = [record.clock_seconds, record.round_seconds, record.upload_bits, record.download_bits,
               record.lora_squared_norm, record.head_squared_norm]  # fmt: skip
    numbers += [value for p in record.participants for value in astuple(p)]
    for optional in (
        record.train_loss,
        record.overhead_seconds,
        record.stepped_back_to,
        record.server_rate_factor,
    ):
        numbers += [] if optional is None else [optional]
    for named in (record.evaluation, record.noise_scale):
        numbers += [] if named is None else named.values()
    whole = [record.round, *(p.client for p in record.participants), *record.missing]
    whole += [*record.entered, *record.excluded, *(client for client, _ in record.refusals)]
    wrong = [v for v in numbers if isinstance(v, bool) or not isinstance(v, int | float)]
    wrong += [v for v in whole if isinstance(v, bool) or not isinstance(v, int)]
    texts = [record.method, *(reason for _, reason in record.refusals)]
    texts += [] if record.diverged is None else [record.diverged]
    wrong += [v for v in texts if not isinstance(v, str)]
    if wrong:
        raise TypeError(f"{shortened(wrong[0])} is of another type than belongs there")
    float(max(map(abs, numbers)))  # an integer of thousands of digits is no number here
