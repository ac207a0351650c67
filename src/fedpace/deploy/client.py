"""`fedpace join`: one client, with its data, for as long as the server wants it."""

import os
import re
import select
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from flwr.clientapp import ClientApp

from fedpace.core.errors import InputError
from fedpace.deploy.client_view import Show
from fedpace.deploy.client_work import Client, Own, Say
from fedpace.deploy.flower_process import start, stop
from fedpace.deploy.knocking import knock
from fedpace.deploy.refusals import refusal_in
from fedpace.deploy.runtime import Endpoint, serve_tasks
from fedpace.deploy.scratch import scratch_folder
from fedpace.deploy.uplink_pacing import Controller, Link, unpaced
from fedpace.engines.flower.client import ClientWork, make_client_app

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
KEPT_OUT_SECONDS = 75.0
"""How long a client tries that Flower may still hold for connected: two heartbeats and more."""
_LOOK_SECONDS = 1.0
"""Between a client's looks for work of which its node did not tell."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What a server with certificates and keys asks for."""

    ca: Path
    """The server's authority."""
    key: Path
    """This client's private key."""


def join(
    server: str,
    own: Own,
    say: Say,
    *,
    show: Show = lambda status: None,
    log: Path | None = None,
    wait_seconds: float = 0.0,
    retry_seconds: float = 600.0,
    admission: Admission | None = None,
    controller: Controller = unpaced,
    around: Callable[[ClientWork], ClientWork] = lambda work: work,
) -> None:
    """Take part until the server says that the run is over.

    A server that goes away is waited for, with the model loaded: it may resume.

    Args:
        server: "HOST:PORT".
        own: name and data.
        say: called with what happens.
        show: called with what the client is doing in a round.
        log: file for what Flower says.
        wait_seconds: how long a server that is not there yet is waited for.
        retry_seconds: how long one that was there is.
        admission: authority and key, where the server asks for them.
        controller: what holds this client to the uplink rate that the server assigns.
        around: puts something around its training, such as the pace of a slower device.

    Raises:
        InputError: the server cannot be reached, or does not take this client; with the remedy.
        RunError: the server did not come back.
    """
    _wait_for(server, wait_seconds, say)
    client = Client(own, say, show)
    with (
        scratch_folder() as folder,
        controller(server, admission is not None) as link,
    ):

        def pace(rate_bps: float, upload_bytes: int) -> None:
            link.pace(rate_bps, upload_bytes)
            client.sending(rate_bps, upload_bytes)

        app = make_client_app(
            client.introduce, lambda context: around(client.work(context)), pace=pace,
            assigned=client.assigned,
        )  # fmt: skip
        log = log or folder / "node.log"
        kept_out_since = None
        while not client.over:
            before = log.stat().st_size if log.exists() else 0
            say(f"connecting to {server}")
            if admission is not None:
                _expect_admission(server, admission)
            _connected(link, app, client, folder / "home", log, admission)
            refusal = refusal_in(_since(log, before))
            kept_out_since = (kept_out_since or time.monotonic()) if refusal else None
            if refusal is not None and kept_out_since is not None:
                passing = refusal.may_pass and time.monotonic() - kept_out_since < KEPT_OUT_SECONDS
                if not passing:
                    remedy = refusal.remedy
                    if refusal.may_pass and admission is not None:
                        # Its key is known, or it had ended before.
                        remedy = (
                            "another client that is there has this key; each needs one of its own: "
                            "fedpace keys add NAME, at the server"
                        )
                    raise InputError(f"server {server} does not take this client: {remedy}")
                say("the server does not take this client yet; trying again")
                time.sleep(5.0)
            elif not client.over:
                say(f"the server went away ({_why(log)}); waiting for it to come back")
                time.sleep(1.0)
                _wait_for(server, retry_seconds, say)
    say("the run is over")


def _connected(
    link: Link,
    app: ClientApp,
    client: Client,
    home: Path,
    log: Path,
    admission: Admission | None,
) -> None:
    """Work over one connection, until it ends."""
    with ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        options = ["--superlink", link.server, "--isolation", "process",
                   "--host", "127.0.0.1", "--port", port, "--max-wait-time", 10]  # fmt: skip
        if admission is None:
            options += ["--insecure"]
        else:
            options += ["--root-certificates", admission.ca,
                        "--auth-supernode-private-key", admission.key]  # fmt: skip
        heard, told = os.pipe()
        stack.callback(os.close, heard)
        node = start("supernode", options, home, log, link.environment, news=told)
        os.close(told)  # so that the node's end is the pipe's
        stack.callback(stop, node)
        while node.poll() is None and not _open(port):
            time.sleep(0.05)
        with suppress(httpx.HTTPError):  # its node ended: so does this connection
            for done in serve_tasks(
                Endpoint(f"127.0.0.1:{port}"), app, partial(_await_news, heard)
            ):
                if done and (client.over or client.refusal is not None):
                    time.sleep(2.0)  # the node hands the last answer on to the server
                    break
                if node.poll() is not None:
                    break
        if client.refusal is not None:
            raise InputError(client.refusal)


def _await_news(heard: int) -> None:
    """Wait until the node has work; after a while look all the same."""
    if select.select([heard], [], [], _LOOK_SECONDS)[0]:
        os.read(heard, 1 << 10)


def _expect_admission(server: str, admission: Admission) -> None:
    answer = knock(server, admission.ca, admission.key)
    if answer is None or not answer.fault:
        return
    remedy = ""
    if not answer.known:
        remedy = "; there: fedpace keys add NAME. If it was let in before, it was revoked"
    raise InputError(f"server {server} does not take this client: {answer.fault}{remedy}")


def _wait_for(server: str, seconds: float, say: Say) -> None:
    end, told = time.monotonic() + seconds, False
    while True:
        try:
            return _reach(server)
        except InputError:
            if time.monotonic() >= end:
                raise
            if not told:
                say(f"server {server} is not there yet; waiting up to {seconds:.0f} s")
                told = True
            time.sleep(0.5)


def _reach(server: str) -> None:
    host, _, port = server.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"server {server!r} is not HOST:PORT, e.g. 192.168.1.10:8080")
    try:
        socket.create_connection((host.strip("[]"), int(port)), 5.0).close()
    except OSError as error:
        raise InputError(
            f"server {server} cannot be reached ({error.strerror or error}); is fedpace serve "
            "running there, and the port open to this machine?"
        ) from None


def _open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def _since(log: Path, position: int) -> str:
    with log.open("rb") as file:
        file.seek(position)
        return file.read().decode("utf-8", "replace")


def _why(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
    told = (line for line in reversed(lines) if "ERROR" in line or "Exit Code" in line)
    # Flower colours its lines, whoever reads them.
    return _COLOUR.sub("", next(told, "it did not say why")).strip()[-200:]
