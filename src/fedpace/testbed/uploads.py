"""Rounds of plain TCP uploads: the shaped network alone, without Flower or training.

A client waits as long as its device would compute, then sends as many bytes as its answer has. What
is measured so is the kernel's part of a round: shares, borrowing, live changes, TCP.
"""

import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import numpy as np
from numpy.typing import NDArray

from fedpace.core.profile import Floats
from fedpace.testbed import links
from fedpace.testbed.classes import Classes
from fedpace.testbed.network import shaped_network
from fedpace.testbed.processes import Part, end, start
from fedpace.testbed.shaper import Passage, Shaper

PORT = 5000
_HEAD = struct.Struct("!HQ")
_LOOK_SECONDS = 0.02


@dataclass(slots=True)
class Uploaders:
    """Clients that send when they are told."""

    run: str
    """The testbed's name."""
    classes: Classes
    parts: Sequence[Part]
    """The receiver, then every client."""

    def round(
        self,
        shaper: Shaper,
        round_index: int,
        client: NDArray[np.int64],
        start_seconds: Floats,
        upload_bytes: NDArray[np.int64],
        rates: Floats,
    ) -> list[Passage]:
        """Play one round; returns each client's passage, in the order given.

        Args:
            shaper: of `classes`.
            round_index: 0, 1, ...
            client: who takes part, shape (M,).
            start_seconds: when each begins to send, shape (M,), s.
            upload_bytes: what each sends, shape (M,).
            rates: assigned to each, shape (M,), bit/s; not used by a work-conserving band.
        """
        shaper.assign(round_index, list(zip(client.tolist(), rates.tolist(), strict=True)))
        mine = {p.client: p for p in shaper.passages[-len(client) :]}
        for n, seconds, size in zip(client, start_seconds, upload_bytes, strict=True):
            shaper.fetched(int(n))
            self.parts[1 + n].line.send((float(seconds), int(size)))
        left, by_line = set(mine), {part.line: n for n, part in enumerate(self.parts)}
        while left:
            for line in wait(list(by_line), _LOOK_SECONDS):
                assert isinstance(line, Connection)
                verb, number = line.recv()
                if verb == "arrived":
                    shaper.arrive([number])
                    left.discard(number)
                else:
                    shaper.send(by_line[line] - 1, number, 0.0)
                    line.send(None)
            shaper.look()
        return [mine[int(n)] for n in client]


@contextmanager
def uploaders(count: int) -> Iterator[Uploaders]:
    """Make a shaped network of so many clients, each connected to a receiver at the server."""
    with shaped_network(count) as shaped, ExitStack() as stack:
        run, folder = shaped.run, shaped.folder
        parts: list[Part] = []
        stack.callback(lambda: end(parts))
        parts.append(start("receiver", links.server(run), folder, receive, count))
        parts[0].line.recv()
        for n in range(count):
            parts.append(start(f"client-{n}", links.client(run, n), folder, upload, n))
            parts[-1].line.recv()
        yield Uploaders(run, shaped.classes, parts)


def upload(line: Connection, number: int) -> None:
    """A client: wait, say so, send; again and again."""
    with socket.create_connection((links.SERVER_ADDRESS, PORT)) as server:
        line.send(("connected", number))
        while True:
            seconds, size = line.recv()
            time.sleep(seconds)
            line.send(("send", size))
            line.recv()
            server.sendall(_HEAD.pack(number, size) + bytes(size))


def receive(line: Connection, count: int) -> None:
    """The server: tell when the last byte of each upload has come."""
    lock = threading.Lock()

    def take(client: socket.socket) -> None:
        with client, client.makefile("rb") as file:
            while head := file.read(_HEAD.size):
                number, size = _HEAD.unpack(head)
                while size > 0:
                    size -= len(file.read(min(size, 1 << 12)))
                with lock:
                    line.send(("arrived", number))

    with socket.create_server((links.SERVER_ADDRESS, PORT)) as listening:
        line.send(("up", 0))
        accepted = (listening.accept()[0] for _ in range(count))
        threads = [threading.Thread(target=take, args=(client,)) for client in accepted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
