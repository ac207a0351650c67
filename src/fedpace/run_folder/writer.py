"""Write a run folder: every file is replaced as a whole, but rounds.jsonl grows by lines."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fedpace.core.plan import Plans
from fedpace.core.record import RoundRecord
from fedpace.run_folder.schema import PLAN, ROUNDS
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.latency import start_seconds, upload_bits
from fedpace.wireless.network import Network


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, nothing between."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, nothing between."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on empty blocks
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()  # on a full disk, what is half written is in the way
        raise _of(path, error) from None


def _of(path: Path, error: OSError) -> OSError:
    """Return an error that names the file, which one of writing does not."""
    return OSError(error.errno, error.strerror, str(path))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def append_record(folder: Path, record: RoundRecord) -> None:
    """Add a round to rounds.jsonl."""
    path = folder / ROUNDS
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())  # a checkpoint on the disk must not know more than the records
    except OSError as error:
        raise _of(path, error) from None


def write_records(folder: Path, records: Sequence[RoundRecord]) -> None:
    """Replace rounds.jsonl."""
    write_text(folder / ROUNDS, "".join(map(_line, records)))


def _line(record: RoundRecord) -> str:
    return json.dumps(record.to_json(), allow_nan=False) + "\n"


def write_plans(folder: Path, network: Network, plans: Mapping[str, Plans]) -> None:
    """Write plan.json: every method's plans, and what the clients' seconds are."""
    clients, system = network.clients, network.system
    band = np.minimum(system.bandwidth_hz, clients.max_bandwidth_hz)
    rank = np.full(len(clients), float(system.lora_rank))
    alone = upload_bits(system, rank) / rate_bps(band, **uplink(clients))
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
                "upload_seconds": alone.tolist(),
            },
        },
    )
