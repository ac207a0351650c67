"""Where a server listens, and to whom: remembered in the run folder, so that it resumes so."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpace.core.errors import InputError
from fedpace.run_folder.atomic import write_json

FILE = "serve.json"
"""In the run folder: the server's address, its folders, and each client's number of examples."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server listens, and to whom."""

    host: str
    port: int
    log: Path | None = None
    """File for what Flower says."""
    certificates: Path | None = None
    """Folder of `fedpace certificates`."""
    keys: Path | None = None
    """Folder of `fedpace keys`."""


def remember(folder: Path, listening: Listening | None, examples: Mapping[str, int]) -> None:
    """Write down how a run is served."""
    table: dict[str, Any] = {"examples": dict(examples)}
    if listening is not None:
        table["host"], table["port"] = listening.host, listening.port
        for name, path in (("certificates", listening.certificates), ("keys", listening.keys)):
            table[name] = None if path is None else str(path.resolve())
    write_json(folder / FILE, table)


def recalled_examples(folder: Path) -> dict[str, int]:
    """Return the number of examples of each client of a run that is resumed; {} of a new one."""
    return dict(_recall(folder).get("examples", {}))


def recalled_listening(
    folder: Path | None,
    host: str | None,
    port: int | None,
    log: Path | None,
    certificates: Path | None,
    keys: Path | None,
) -> Listening:
    """Return where to listen: as is asked for, else as the run was served before.

    Args:
        folder: of a run that is resumed; None of a new one.
        host: asked for; None where nothing is. The others likewise.
        port: likewise.
        log: likewise.
        certificates: likewise.
        keys: likewise.

    Raises:
        InputError: certificates or keys that the run was served with are not there any more.
    """
    before = {} if folder is None else _recall(folder)
    if certificates is None and keys is None and host is None and before.get("keys"):
        certificates, keys = Path(before["certificates"]), Path(before["keys"])
        for path in (certificates, keys):
            if not path.exists():
                raise InputError(
                    f"{folder} was served with {path}, which is not there any more; say where they "
                    "are now with --certificates and --keys"
                )
    return Listening(
        host or before.get("host") or "127.0.0.1", port or before.get("port") or 8080, log,
        certificates, keys,
    )  # fmt: skip


def _recall(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        table = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path} cannot be read ({error}); remove it, and give --host, --port, "
                         "--certificates and --keys as before") from None  # fmt: skip
    return table if isinstance(table, dict) else {}
