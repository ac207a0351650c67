"""How fast bodies came to Flower's server, seen where they arrive: first to last byte.

Flower's server runs in a process of its own; there `timed` looks at the bodies of the parts that
clients push, and writes a line for each to a file, which `UploadTimes` reads in the server's.
"""

import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

VARIABLE = "FEDPACE_UPLOAD_TIMES"
"""Environment variable: the file, for the process that runs Flower's server."""
PATH = "/v1/fleet/push-object"
_OBJECT_ID = re.compile(rb"[0-9a-f]{64}")

_Message = MutableMapping[str, Any]
App = Callable[
    [_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]],
    Awaitable[None],
]
"""An ASGI application."""


def timed(app: App, file: Path) -> App:
    """Return an application that also writes down how fast each pushed part came."""

    async def look(
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            return await app(scope, receive, send)
        head, first, last, before, count = b"", 0.0, 0.0, 0, 0

        async def seen() -> _Message:
            nonlocal head, first, last, before, count
            message = await receive()
            body = message.get("body", b"")
            if body:
                last = time.monotonic()
                count += len(body)
                if not head:
                    first, before, head = last, len(body), bytes(body[:512])
            return message

        await app(scope, seen, send)
        found = _OBJECT_ID.search(head)
        if found is not None and count > before:
            line = json.dumps([found[0].decode(), (last - first) / (count - before)])
            with file.open("a", encoding="ascii") as output:
                output.write(line + "\n")

    return look


class UploadTimes:
    """The file, read as it grows."""

    def __init__(self, file: Path) -> None:
        self._file, self._read = file, 0
        self._seen: dict[str, float] = {}

    def take(self, object_id: str) -> float | None:
        """Return, once, the seconds a byte of a part; None where it came in one piece."""
        if self._file.exists():
            with self._file.open("rb") as lines:
                lines.seek(self._read)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    name, seconds_a_byte = json.loads(line)
                    self._seen[name] = seconds_a_byte
        return self._seen.pop(object_id, None)
