"""A run on disk: what is written when, and how a killed run finds its place again.

The layout is in docs/file-formats.md. Every file is replaced atomically, except rounds.jsonl,
which grows by a line a round and is cut back to the last checkpoint on resume.
"""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedpace.core.adapter import Array
from fedpace.core.errors import InputError
from fedpace.core.record import RoundRecord
from fedpace.reporting.metrics import Plans
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.latency import start_seconds, upload_bits
from fedpace.wireless.network import Network

FORMAT = "fedpace-checkpoint-1"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Everything one method needs to go on: arrays, and JSON for the rest."""

    adapter: Mapping[str, Array]
    optimizer: Mapping[str, Array]
    memory: Mapping[str, Array]
    state: Mapping[str, Any]
    """Next round, clock, plans, estimates, initial evaluation, whether it has finished."""


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, nothing between."""
    _write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def append_record(folder: Path, record: RoundRecord) -> None:
    """Add a round to rounds.jsonl."""
    with (folder / "rounds.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record.to_json(), allow_nan=False) + "\n")


def read_records(folder: Path) -> list[RoundRecord]:
    """Read rounds.jsonl; a last line cut off by a kill is left out."""
    path = folder / "rounds.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_text("utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            records.append(RoundRecord.from_json(json.loads(line)))
    return records


def write_records(folder: Path, records: Sequence[RoundRecord]) -> None:
    """Replace rounds.jsonl."""
    lines = [json.dumps(record.to_json(), allow_nan=False) + "\n" for record in records]
    write_text(folder / "rounds.jsonl", "".join(lines))


def write_checkpoint(folder: Path, method: str, checkpoint: Checkpoint) -> None:
    """Write a method's checkpoint: one safetensors file, the state as JSON in its header."""
    tensors = {f"adapter/{name}": value for name, value in checkpoint.adapter.items()}
    tensors |= {f"optimizer/{name}": value for name, value in checkpoint.optimizer.items()}
    tensors |= {f"memory/{name}": value for name, value in checkpoint.memory.items()}
    state = json.dumps(checkpoint.state, allow_nan=False)
    path = folder / "checkpoint" / f"{method}.safetensors"
    path.parent.mkdir(exist_ok=True)
    _write_bytes(path, save(tensors, metadata={"format": FORMAT, "state": state}))


def read_checkpoint(folder: Path, method: str) -> Checkpoint | None:
    """Read a method's checkpoint; None where it has none yet."""
    path = folder / "checkpoint" / f"{method}.safetensors"
    if not path.exists():
        return None
    parts: dict[str, dict[str, Array]] = {"adapter": {}, "optimizer": {}, "memory": {}}
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            for key in file.keys():  # noqa: SIM118 - not a dict
                part, _, name = key.partition("/")
                parts[part][name] = file.get_tensor(key)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}); start a new run") from None
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} has format {metadata.get('format')!r}, this version reads "
                         f"{FORMAT!r}; resume with the version that wrote it")  # fmt: skip
    return Checkpoint(**parts, state=json.loads(metadata["state"]))


def _write_bytes(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave the new name on empty blocks
    part.replace(path)


def write_plans(folder: Path, network: Network, plans: Mapping[str, Plans]) -> None:
    """Write plan.json: every method's plans, and what the clients' seconds are."""
    clients, system = network.clients, network.system
    band = np.minimum(system.bandwidth_hz, clients.max_bandwidth_hz)
    rank = np.full(len(clients), float(system.lora_rank))
    alone = upload_bits(system, rank) / rate_bps(band, **uplink(clients))
    write_json(
        folder / "plan.json",
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


def environment() -> dict[str, str]:
    """Return what a result was computed with: Python, machine, versions."""
    packages = ("fedpace", "numpy", "scipy", "torch", "transformers", "peft")
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name: importlib.metadata.version(name) for name in packages},
    }


def free_folder(parent: Path) -> Path:
    """Return the first of parent/1, parent/2, ... that does not exist."""
    number = 1
    while (parent / str(number)).exists():
        number += 1
    return parent / str(number)
