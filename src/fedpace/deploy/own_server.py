"""Flower's server, started and ended with a run, and the run opened on it."""

import errno
import importlib.metadata
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fedpace.core.errors import InputError, RunError
from fedpace.deploy.flower_patches import SIGNED_SECONDS, SIGNED_VARIABLE
from fedpace.deploy.flower_process import start, stop
from fedpace.deploy.runtime import Endpoint, server_grid, start_run
from fedpace.deploy.scratch import scratch_folder
from fedpace.deploy.secure_server import Protection, open_secure_server
from fedpace.deploy.upload_times import VARIABLE, UploadTimes
from fedpace.engines.flower.arrivals import Arrivals

START_SECONDS = 300.0
"""Flower's server takes some seconds; on a machine that is very busy, minutes."""
CLAIM_SECONDS = 8.0
"""How long a port that is in use may become free."""


@contextmanager
def own_server(
    host: str,
    port: int,
    log: Path,
    protection: Protection | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Arrivals]:
    """Start Flower's server and open a run on it; both end with the context.

    Args:
        host: an address of this machine; without protection a loopback address.
        port: that clients connect to.
        log: file for what Flower says.
        protection: certificates and keys; with them Flower's own port is another one, on loopback.
        say: called with what changes among the keys.

    Raises:
        InputError: the port is taken.
        RunError: Flower's server does not start.
    """
    _claim(host, port)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        options: list[object] = ["--isolation", "process",
                                 "--disable-runtime-dependency-installation"]  # fmt: skip
        ca, uploads = None, folder / "uploads.jsonl"
        environment = {VARIABLE: str(uploads)}
        if protection is None:
            inner_host, inner_port = host, port
            options += ["--insecure"]
        else:
            inner_host, inner_port = "127.0.0.1", _free_port()
            options += protection.superlink_options()
            environment[SIGNED_VARIABLE] = str(SIGNED_SECONDS)
            ca = protection.certificates.ca
        options += ["--host", inner_host, "--port", inner_port]
        process = start("superlink", options, folder / "home", log, environment)
        stack.callback(stop, process)
        _wait_for_port(inner_host, inner_port, lambda: process.poll() is None, log)
        endpoint = Endpoint(f"{inner_host}:{inner_port}", ca)
        if protection is not None:
            stack.enter_context(
                open_secure_server(host, port, endpoint.address, protection, log, say)
            )
        (folder / "app").mkdir()
        start_run(endpoint, folder / "app", importlib.metadata.version("fedpace"))
        grid = stack.enter_context(server_grid(endpoint))
        yield Arrivals(grid, seconds_a_byte=UploadTimes(uploads).take)


def _claim(host: str, port: int) -> None:
    """Wait for the port a little: Flower's server of one that was killed ends just after it."""
    end = time.monotonic() + CLAIM_SECONDS
    while True:
        try:
            return socket.create_server((host, port)).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise InputError(
                    f"cannot listen on {host} port {port} ({error.strerror}); "
                    "choose another --port, or end what uses it"
                ) from None
            time.sleep(0.2)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _wait_for_port(host: str, port: int, alive: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            socket.create_connection((host, port), 1.0).close()
        except OSError:
            if not alive():
                break
            time.sleep(0.05)
        else:
            return
    raise RunError(f"Flower's server did not start; it says why in {log}")
