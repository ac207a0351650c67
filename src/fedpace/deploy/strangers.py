"""How much of the server's memory those may have who have not shown a key yet.

A connection counts as a stranger's until a call on it was found to be of a client. It holds at most
a call's headers (16 KiB) and what was read of a body before the headers were judged (64 KiB); it
ends after some seconds; and of more strangers than there is room for the one that came first ends,
so that whoever has a key comes through.
"""

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

STRANGER_SECONDS = 20.0
"""A connection on which no client has called by then ends."""
MOST_STRANGERS = 512
"""At the same time."""


class GuardedConnection(H11Protocol):
    """A connection to the proxy."""

    strangers: ClassVar[dict["GuardedConnection", asyncio.TimerHandle]] = {}
    """In the order in which they came."""

    def connection_made(self, transport: Any) -> None:
        """Let it in, as a stranger."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "connection": self}
        self.strangers[self] = self.loop.call_later(STRANGER_SECONDS, self._end)
        if len(self.strangers) > MOST_STRANGERS:
            next(iter(self.strangers))._end()

    def known(self) -> None:
        """A client has called on it."""
        timer = self.strangers.pop(self, None)
        if timer is not None:
            timer.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.known()
        super().connection_lost(exc)

    def _end(self) -> None:
        self.known()
        self.transport.abort()  # type: ignore[attr-defined]
