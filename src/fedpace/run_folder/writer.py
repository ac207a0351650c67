"""Write a run folder: every file is replaced as a whole, but rounds.jsonl grows by lines."""

import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from fedpace.core.plan import Plans
from fedpace.core.record import RoundRecord
from fedpace.run_folder.atomic import naming, write_json, write_text
from fedpace.run_folder.schema import ADAPTER, PLAN, ROUNDS
from fedpace.wireless.latency import start_seconds, upload_alone_seconds
from fedpace.wireless.network import Network, planning_clients


def append_record(folder: Path, record: RoundRecord) -> None:
    """Add a round to rounds.jsonl."""
    path = folder / ROUNDS
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())  # a checkpoint on the disk must not know more than the records
    except OSError as error:
        raise naming(path, error) from None


def write_records(folder: Path, records: Sequence[RoundRecord]) -> None:
    """Replace rounds.jsonl."""
    write_text(folder / ROUNDS, "".join(map(_line, records)))


def _line(record: RoundRecord) -> str:
    return json.dumps(record.to_json(), allow_nan=False) + "\n"


def write_adapter(folder: Path, name: str, save: Callable[[Path], None]) -> None:
    """Write a method's adapter so that no file of it is ever half there.

    Args:
        folder: the run folder.
        name: sub-folder of adapter/; "" for the first method's.
        save: writes the files into a folder.

    Raises:
        OSError: it cannot be written.
    """
    target = folder / ADAPTER / name
    part = folder / f"{ADAPTER}.part"
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed here
    try:
        part.mkdir()
        save(part)
        target.mkdir(parents=True, exist_ok=True)
        readable = stat.S_IMODE(part.stat().st_mode) & 0o666  # as the umask has it
        for file in part.iterdir():
            file.chmod(readable)  # safetensors writes files that only their owner reads
            with file.open("rb") as written:
                os.fsync(written.fileno())
            file.replace(target / file.name)
    except SafetensorError as error:  # so it tells of a full disk
        raise OSError(None, str(error), str(target)) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_plans(folder: Path, network: Network, plans: Mapping[str, Plans]) -> None:
    """Write plan.json: every method's plans, and what the clients' seconds are.

    Links that fade are told by their mean over fading, as `fedpace plan` tells them.
    """
    clients, system = planning_clients(network), network.system
    rank = np.full(len(clients), float(system.lora_rank))
    write_json(
        folder / PLAN,
        {
            "methods": {
                method: made[0][1].to_json()
                | {"renewals": [{"round": first, "plan": p.to_json()} for first, p in made[1:]]}
                for method, made in plans.items()
            },
            "clients": {
                "start_seconds": start_seconds(clients, system, rank).tolist(),
                "upload_seconds": upload_alone_seconds(clients, system, rank).tolist(),
            },
        },
    )
