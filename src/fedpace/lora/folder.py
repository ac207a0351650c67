"""A model's files before they are loaded: pointers and halves are named, with the remedy."""

import json
from collections.abc import Iterator
from pathlib import Path

from fedpace.core.text_files import recognised, shortened

_TEXTS = ("vocab.txt", "merges.txt")


def fault(folder: Path) -> str | None:
    """Say which file of a model folder cannot be what its name says, and what to do.

    Args:
        folder: as `save_pretrained` leaves it.

    Returns:
        "FILE: what is wrong; remedy", or None.
    """
    for path in _used(folder):
        try:
            with path.open("rb") as file:
                start = file.read(64)
        except OSError as error:
            return f"{path.name}: cannot be read ({error.strerror}); copy it again"
        if not start:
            return f"{path.name}: is empty; copy it again"
        found = recognised(start)
        if found and found[0].startswith("a Git LFS pointer"):
            return f"{path.name}: is {found[0]}; {found[1]} in that folder"
        if path.suffix == ".safetensors" and (cut := _cut(path)):
            return f"{path.name}: {cut}; copy or download it again"
        if path.suffix == ".json" and (broken := _broken_json(path)):
            return f"{path.name}: {broken}; copy it again"
    return _missing_shard(folder)


def _used(folder: Path) -> Iterator[Path]:
    """The files that are read, where they are there."""
    weights = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    texts = [folder / name for name in _TEXTS]
    yield from (p for p in (*sorted(folder.glob("*.json")), *texts, *weights) if p.is_file())
    yield from sorted(folder.glob("*.model"))


def _cut(path: Path) -> str | None:
    """A safetensors file says in its header how long it is."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            return f"is no whole safetensors file ({size:,} bytes)"
        try:
            header = json.loads(file.read(length))
            spans = [t["data_offsets"] for name, t in header.items() if name != "__metadata__"]
            end = 8 + length + max((int(span[1]) for span in spans), default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return "has no header of a safetensors file"
    return None if size >= end else f"is cut off ({size:,} of {end:,} bytes)"


def _broken_json(path: Path) -> str | None:
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        return f"is no JSON ({error})"
    return None


def _missing_shard(folder: Path) -> str | None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file() or (folder / "model.safetensors").is_file():
        return None
    found = json.loads(index.read_bytes())
    shards = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(shards, dict):
        return f"{index.name}: has no weight_map; copy it again"
    if outside := sorted({str(s) for s in shards.values() if Path(str(s)).name != str(s)}):
        return f"{index.name}: names {shortened(outside[0])}, which is no file of that folder"
    missing = sorted({str(s) for s in shards.values() if not (folder / str(s)).is_file()})
    return f"{missing[0]}: is missing ({index.name} names it); copy it, too" if missing else None
