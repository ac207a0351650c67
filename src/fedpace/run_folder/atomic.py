"""Files that are replaced as a whole: a reader sees the old content or the new."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, nothing between."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes, *, keep: Path | None = None) -> None:
    """Write a file so that a reader sees the old content or the new, nothing between.

    Args:
        path: of the file.
        data: the new content.
        keep: where the old file goes; between the two steps only this one is there.

    Raises:
        OSError: it cannot be written; names the file. The old content is still there.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on empty blocks
        if keep is not None and path.exists():
            path.replace(keep)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()  # on a full disk, what is half written is in the way
        raise naming(path, error) from None


def naming(path: Path, error: OSError) -> OSError:
    """Return an error that names the file, which one of writing does not."""
    return OSError(error.errno, error.strerror, str(path))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
