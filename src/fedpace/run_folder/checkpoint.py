"""A method's checkpoint: one safetensors file, the rest of the state as JSON in its header."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedpace.core.adapter import Array
from fedpace.core.errors import InputError
from fedpace.run_folder.schema import CHECKPOINT, CHECKPOINT_FORMAT, Checkpoint
from fedpace.run_folder.writer import write_bytes


def write_checkpoint(folder: Path, method: str, checkpoint: Checkpoint) -> None:
    """Write a method's checkpoint."""
    tensors = {f"adapter/{name}": value for name, value in checkpoint.adapter.items()}
    tensors |= {f"optimizer/{name}": value for name, value in checkpoint.optimizer.items()}
    tensors |= {f"memory/{name}": value for name, value in checkpoint.memory.items()}
    state = json.dumps(checkpoint.state, allow_nan=False)
    path = folder / CHECKPOINT / f"{method}.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_bytes(path, save(tensors, metadata={"format": CHECKPOINT_FORMAT, "state": state}))


def read_checkpoint(folder: Path, method: str) -> Checkpoint | None:
    """Read a method's checkpoint; None where it has none yet.

    Raises:
        InputError: it is damaged, or of another format.
    """
    path = folder / CHECKPOINT / f"{method}.safetensors"
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
    if metadata.get("format") != CHECKPOINT_FORMAT:
        raise InputError(
            f"{path} has format {metadata.get('format')!r}, this version reads "
            f"{CHECKPOINT_FORMAT!r}; resume with the version that wrote it"
        )
    return Checkpoint(**parts, state=json.loads(metadata["state"]))
