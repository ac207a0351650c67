"""A method's checkpoint: one safetensors file with a checksum, and the one before it.

The rest of the state is JSON in the header, so there is no moment at which two files of a
checkpoint disagree.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import save

from fedpace.core.adapter import Array
from fedpace.core.errors import InputError
from fedpace.run_folder.atomic import write_bytes
from fedpace.run_folder.schema import CHECKPOINT, CHECKPOINT_FORMAT, Checkpoint

_PARTS = ("adapter", "optimizer", "memory")


class _DamagedError(Exception):
    """A file is not what was written."""


def write_checkpoint(folder: Path, method: str, checkpoint: Checkpoint) -> None:
    """Write a method's checkpoint and keep the one before.

    Raises:
        OSError: it cannot be written; names the file. The ones before are still there.
    """
    parts = {name: getattr(checkpoint, name) for name in _PARTS} | dict(checkpoint.more)
    tensors = {f"{part}/{n}": value for part, named in parts.items() for n, value in named.items()}
    state = json.dumps(checkpoint.state, allow_nan=False)
    digest = _digest(tensors, CHECKPOINT_FORMAT, state)
    header = {"format": CHECKPOINT_FORMAT, "state": state, "sha256": digest}
    newest, before = _paths(folder, method)
    newest.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(newest, save(tensors, metadata=header), keep=before)


def read_checkpoint(
    folder: Path, method: str, note: Callable[[str], None] = lambda text: None
) -> Checkpoint | None:
    """Read a method's checkpoint, the one before where it is damaged; None where there is none.

    What is damaged is set aside as NAME.damaged.

    Args:
        folder: the run folder.
        method: one name.
        note: told in a line where the one before is used, and why.

    Raises:
        InputError: both are damaged, or it is of another format.
    """
    faults = []
    for path in _paths(folder, method):
        if not path.exists():
            continue
        try:
            found = _read(path)
        except _DamagedError as fault:
            faults.append(f"{path} is damaged ({fault})")
            with suppress(
                OSError
            ):  # or the next one written would put it in the place of a good one
                path.replace(path.with_suffix(".damaged"))
            continue
        if faults:
            note(f"{faults[0]}; going on from the one before, {path}")
        return found
    if faults:
        raise InputError(f"{'; '.join(faults)}; restore it, or start a new run with --out")
    return None


def _paths(folder: Path, method: str) -> tuple[Path, Path]:
    """Return the paths of the newest checkpoint and the one before."""
    where = folder / CHECKPOINT
    return where / f"{method}.safetensors", where / f"{method}.before.safetensors"


def _read(path: Path) -> Checkpoint:
    tensors: dict[str, Array] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            for key in file.keys():  # noqa: SIM118 - not a dict
                tensors[key] = file.get_tensor(key)
    except PermissionError:
        raise
    except Exception as error:  # whatever the library makes of damaged bytes
        raise _DamagedError(str(error) or type(error).__name__) from None
    written = header.get("format", "")
    sound = header.get("sha256") == _digest(tensors, written, header.get("state", ""))
    if not sound and written != "fedpace-checkpoint-1":  # which had no checksum
        raise _DamagedError("its checksum is another")
    if written != CHECKPOINT_FORMAT:
        raise InputError(
            f"{path} has format {written!r}, this version reads {CHECKPOINT_FORMAT!r}; resume with "
            "the version that wrote it"
        )
    parts: dict[str, dict[str, Array]] = {name: {} for name in _PARTS}
    for key, value in tensors.items():
        part, _, name = key.partition("/")
        parts.setdefault(part, {})[name] = value
    state: Mapping[str, Any] = json.loads(header["state"])
    return Checkpoint(*(parts.pop(name) for name in _PARTS), state=state, more=parts)


def _digest(tensors: Mapping[str, Array], written: str, state: str) -> str:
    """Return the SHA-256 of format, state, and the tensors' names, shapes, types and bytes."""
    digest = hashlib.sha256(f"{written} {state}".encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.shape} {value.dtype}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
