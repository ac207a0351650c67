"""A server that others can reach: Flower's on loopback with TLS and keys, the proxy before it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedpace.core.errors import FedPaceError
from fedpace.deploy.certificates import Certificates
from fedpace.deploy.keys import FILE, sync_keys
from fedpace.deploy.proxy import fleet_proxy

WATCH_SECONDS = 1.0
"""How often the file of keys is looked at."""


@dataclass(frozen=True, slots=True)
class Protection:
    """What a server needs that is open to a network."""

    certificates: Certificates
    keys: Path
    """Folder of the keys of the clients that may join."""

    def superlink_options(self) -> list[object]:
        """Return what Flower's server is started with."""
        made = self.certificates
        return ["--enable-supernode-auth", "--ssl-ca-certfile", made.ca,
                "--ssl-certfile", made.certificate, "--ssl-keyfile", made.key]  # fmt: skip


@contextmanager
def open_door(
    host: str,
    port: int,
    inner: str,
    protection: Protection,
    log: Path,
    say: Callable[[str], None],
) -> Iterator[None]:
    """Let clients with a key in to a server on loopback, for as long as the context lasts.

    A key that is added to the file, or revoked, counts from the next second on.

    Args:
        host: public address.
        port: public port.
        inner: address of Flower's server, "127.0.0.1:PORT".
        protection: certificates and keys.
        log: file that the proxy's log is added to.
        say: called with what changed among the keys, and with what is wrong there.

    Raises:
        InputError: the address cannot be listened on, or the file of keys is wrong.
        RunError: Flower's server does not answer.
    """
    ca = protection.certificates.ca
    seen = _version(protection.keys)
    sync_keys(protection.keys, inner, ca)
    ended = threading.Event()

    def watch() -> None:
        nonlocal seen
        while not ended.wait(WATCH_SECONDS):
            if (now := _version(protection.keys)) == seen:
                continue
            try:
                changes = sync_keys(protection.keys, inner, ca)
            except FedPaceError as error:
                say(f"keys: {error}")  # and who could join before still can
            else:
                say(f"keys: {len(changes.registered)} added, {len(changes.unregistered)} revoked")
            seen = now

    with log.open("ab") as output:
        proxy = fleet_proxy(host, port, f"https://{inner}", protection.certificates, log=output)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        assert proxy.stdin is not None
        proxy.stdin.close()
        proxy.wait()
        watcher.join()


def _version(folder: Path) -> tuple[int, int]:
    """Return what differs when the file was written again."""
    path = folder / FILE
    if not path.exists():
        return 0, 0
    found = path.stat()
    return found.st_mtime_ns, found.st_ino
