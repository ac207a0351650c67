"""A relay on this machine between a client's node and its server: bytes pass, at a rate if asked.

Flower's node opens its own connections, so its uplink is paced from outside: it is told to go
through this relay, which passes what it sends no faster than the rate in force, all connections
together. Where the server asks for TLS the node tunnels through (CONNECT, as any client of HTTP
does where `HTTPS_PROXY` is set), so that certificates are checked end to end and nothing is read
here.
"""

import asyncio
import math
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

CHUNK_BYTES = 16384
"""Passed on at once, at most."""
CHUNK_SECONDS = 0.02
"""And at a low rate no more than what it carries in this time, but a packet."""
PACKET_BYTES = 1400
PAUSE_SECONDS = 0.2
"""A shorter pause, between two requests or of a busy machine, is made up for; a longer one is not,
or what comes after it would leave in a burst."""

Watch = Callable[[int, str, bytes], None]
"""Called with the number of a connection, "up" or "down", and what passes there."""


class Relay:
    """Passes connections on to one server; made by `open_relay`."""

    def __init__(self, host: str, port: int, tunnel: bool, watch: Watch | None) -> None:
        self.port = 0
        """Where it listens, on 127.0.0.1."""
        self._upstream, self._tunnel, self._watch = (host, port), tunnel, watch
        self._connections, self._rate_bps, self._free_at = 0, math.inf, -math.inf
        self._stopped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop

    def pace(self, rate_bps: float) -> None:
        """Let what goes up leave at a rate from now on, bit/s, infinite for no limit."""
        self._rate_bps, self._free_at = rate_bps, -math.inf

    async def serve(self, ready: Callable[[], None]) -> None:
        """Listen until `stop`."""
        self._loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        server = await asyncio.start_server(self._accept, sock=listener, limit=CHUNK_BYTES)
        ready()
        await self._stopped.wait()
        server.close()

    def stop(self) -> None:
        """End, with all connections."""
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        number = self._connections
        try:
            if self._tunnel:
                await reader.readuntil(b"\r\n\r\n")  # whereto it says does not count
            inner, outer = await asyncio.open_connection(*self._upstream, limit=CHUNK_BYTES)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.close()  # its node sees a server that does not answer, as it is
            return
        if self._tunnel:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with suppress(asyncio.CancelledError):  # `stop`
            await asyncio.gather(
                self._pump(reader, outer, number, "up"), self._pump(inner, writer, number, "down")
            )

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, number: int, way: str
    ) -> None:
        try:
            while data := await source.read(self._chunk() if way == "up" else 4 * CHUNK_BYTES):
                if way == "up":
                    await self._wait(len(data))
                if self._watch is not None:
                    self._watch(number, way, data)
                sink.write(data)
                await sink.drain()
            sink.close()
        except (OSError, asyncio.CancelledError):
            sink.transport.abort()

    def _chunk(self) -> int:
        carried = self._rate_bps / 8 * CHUNK_SECONDS
        return int(min(CHUNK_BYTES, max(PACKET_BYTES, carried)))

    async def _wait(self, count: int) -> None:
        """Wait until what was sent before has left at the rate in force; then `count` bytes may."""
        now = asyncio.get_running_loop().time()
        begin = self._free_at if now - self._free_at < PAUSE_SECONDS else now
        self._free_at = begin + 8 * count / self._rate_bps
        if begin > now:
            await asyncio.sleep(begin - now)


@contextmanager
def open_relay(
    host: str, port: int, *, tunnel: bool = False, watch: Watch | None = None
) -> Iterator[Relay]:
    """Relay connections to a server while the context lasts.

    Args:
        host: of the server.
        port: of the server.
        tunnel: whether connections begin with CONNECT, for TLS; whatever they name, they are
            passed to this server and no other.
        watch: sees what passes.

    Yields:
        The relay; its `pace` sets the rate, which is infinite at first.
    """
    relay = Relay(host, port, tunnel, watch)
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(relay.serve(ready.set)), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield relay
    finally:
        relay.stop()
        thread.join()
