"""A server that others can reach: Flower's on loopback with TLS and keys, the proxy before it."""

import math
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flwr.common.constant import SYSTEM_TIME_TOLERANCE

from fedpace.core.errors import FedPaceError, RunError
from fedpace.deploy.certificates import Certificates
from fedpace.deploy.fleet_guard import file_version
from fedpace.deploy.keys import sync_keys
from fedpace.deploy.proxy import fleet_proxy

WATCH_SECONDS = 1.0
"""How often the file of keys and the proxy are looked at."""
_FAILED = signal.SIGUSR1
"""How the watching thread ends the main one: an interrupt is ignored in background processes."""
MOST_ENDS = 5
"""A proxy that ends more often within a minute will not last."""


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
def open_secure_server(
    host: str,
    port: int,
    inner: str,
    protection: Protection,
    log: Path,
    say: Callable[[str], None],
) -> Iterator[None]:
    """Let clients with a key in to a server on loopback, for as long as the context lasts.

    A key that is added to the file counts from the next second on, one that is revoked from the
    next call on. A proxy that ends by itself is started again; clients wait for it.

    Args:
        host: public address.
        port: public port.
        inner: address of Flower's server, "127.0.0.1:PORT".
        protection: certificates and keys.
        log: file that the proxy's log is added to.
        say: called with what changed among the keys, with what is wrong there, with who is
            refused, and when the proxy was started again.

    Raises:
        InputError: the address cannot be listened on, or the file of keys is wrong.
        RunError: Flower's server does not answer, or the proxy ends again and again. The latter is
            raised out of the body, which must run in the main thread.
    """
    ca = protection.certificates.ca
    seen = file_version(protection.keys)
    sync_keys(protection.keys, inner, ca)
    ended, failure = threading.Event(), ""

    def start(signed_after: float) -> subprocess.Popen[bytes]:
        made, upstream = protection.certificates, f"https://{inner}"
        with log.open("ab") as output:
            return fleet_proxy(
                host, port, upstream, made, protection.keys, log=output, notes=subprocess.PIPE,
                signed_after=signed_after,
            )  # fmt: skip

    def watch() -> None:
        nonlocal seen, failure
        while not ended.wait(WATCH_SECONDS):
            try:
                proxy.look()
            except FedPaceError as error:
                failure = f"no client can reach the server any more: {error}"
                signal.pthread_kill(threading.main_thread().ident or 0, _FAILED)
                return
            if (now := file_version(protection.keys)) == seen:
                continue
            try:
                changes = sync_keys(protection.keys, inner, ca)
            except FedPaceError as error:
                say(f"keys: {error}")  # and who could join before still can
            else:
                say(f"keys: {len(changes.registered)} added, {len(changes.unregistered)} revoked")
            seen = now

    def fail(*signaled: object) -> None:
        raise RunError(failure)

    proxy = _Proxy(start, log, say)
    watcher = threading.Thread(target=watch, daemon=True)
    before = signal.signal(_FAILED, fail)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        signal.signal(_FAILED, before)
        proxy.end()


class _Proxy:
    """The proxy's process, started again where it ended by itself."""

    def __init__(
        self,
        start: Callable[[float], subprocess.Popen[bytes]],
        log: Path,
        say: Callable[[str], None],
    ) -> None:
        self._start, self._log, self._say = start, log, say
        self._process = self._started(-math.inf)
        self._ends: list[float] = []

    def _started(self, signed_after: float) -> subprocess.Popen[bytes]:
        process = self._start(signed_after)
        if process.stdout is not None:
            threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()
        return process

    def _read(self, notes: IO[bytes]) -> None:
        with notes:
            for line in notes:
                self._say(line.decode("utf-8", "replace").strip())

    def look(self) -> None:
        """See whether it runs.

        Raises:
            InputError: its address cannot be listened on any more.
            RunError: it ends again and again.
        """
        if self._process.poll() is None:
            return
        self.end()
        now = time.monotonic()
        self._ends = [*(t for t in self._ends if now - t < 60), now]
        if len(self._ends) > MOST_ENDS:
            raise RunError(
                f"the proxy ended {len(self._ends)} times within a minute; it says why in "
                f"{self._log}"
            )
        self._say(f"the proxy ended (status {self._process.returncode}) and is started again")
        # What it knew of used signatures is lost: whatever it can have seen is refused.
        self._process = self._started(time.time() + SYSTEM_TIME_TOLERANCE)

    def end(self) -> None:
        """End it, if it runs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
