"""The proxy of a secure server: of Flower's three interfaces the network reaches one.

Flower 1.41 serves the calls of its clients (Fleet), of whoever submits code to run on server and
clients (Control), and of its own processes (Runtime) on one port, the last two without accounts.
So the server listens on loopback alone, and this proxy passes the calls of the clients from the
public address to it, and nothing else. Who calls is checked from the headers, by `fleet_guard`,
before a byte of a body is read; bodies stream through, within bounds; what strangers may hold is
bounded by `strangers`. Beside Flower's calls there is one of ours, `KNOCK`: a client asks if its
key is known, and how far its clock is off.
"""

import argparse
import json
import logging
import math
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from fedpace.core.errors import InputError
from fedpace.deploy.certificates import Certificates
from fedpace.deploy.fleet_guard import (
    Fault,
    KeyFile,
    ReplayMemory,
    caller_fault,
    passes,
    push_fault,
    signed_before,
)
from fedpace.deploy.strangers import GuardedConnection

FLEET_CALLS = frozenset({
    "register-node", "activate-node", "deactivate-node", "unregister-node", "send-node-heartbeat",
    "pull-messages", "push-messages", "get-run", "get-fab", "push-object", "pull-object",
    "confirm-message-received",
})  # fmt: skip
"""What follows /v1/fleet/ in Flower 1.41, named one by one: a call it adds later is closed."""
KNOCK = "/v1/fedpace/knock"
"""Answers {"known": whether the key may join, "fault": why calls are refused, or ""}."""
MAX_BODY_BYTES = 256 * 2**20
"""Flower's server holds a body whole: of one client's calls, all on their way together."""
MAX_PUSH_BYTES = 4 * 2**20
"""A push names its objects and does not hold them; it is read whole to be checked."""
NOTE_SECONDS = 60.0
"""The same is told of the same client once in this time."""

_log = logging.getLogger("fedpace.proxy")


def make_app(
    upstream: str,
    upstream_ca: Path | None,
    max_body_bytes: int,
    keys: Path,
    signed_after: float = -math.inf,
) -> Starlette:
    """Make the proxy.

    Args:
        upstream: Flower's server, "https://127.0.0.1:PORT".
        upstream_ca: certificate authority its certificate is checked against.
        max_body_bytes: a call with more is refused, and so is what a client has on its way.
        keys: folder of the keys that may call; read again when it changes.
        signed_after: seconds since 1970; a call that was signed before is to be signed again.
    """
    replays, known, notes = ReplayMemory(), KeyFile(keys), Notes()
    coming: Counter[str] = Counter()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
        async with httpx.AsyncClient(
            base_url=upstream,
            verify=ssl.create_default_context(cafile=upstream_ca),
            timeout=httpx.Timeout(60.0, pool=None),
            # Flower's server closes idle connections after 5 s; one closed under a call is a 503.
            limits=httpx.Limits(max_connections=None, keepalive_expiry=2.0),
            trust_env=False,
        ) as client:
            yield {"client": client}

    def judge(request: Request) -> Fault | str:
        found = caller_fault(
            request.headers.raw, known.names(), replays, time.time(), time.monotonic()
        )
        if isinstance(found, Fault):
            notes.tell(found, request)
        return found

    async def knock(request: Request) -> Response:
        found = judge(request)
        fault = found if isinstance(found, Fault) else None
        return _closing(
            json.dumps({"known": fault is None or bool(fault.client),
                        "fault": "" if fault is None else fault.reason}), 200,
        )  # fmt: skip

    async def pass_on(request: Request) -> Response:
        call = request.path_params["call"]
        if call not in FLEET_CALLS:
            return _closing("", 404)
        if signed_after > 0 and signed_before(request.headers.get("flwr-timestamp"), signed_after):
            return _refuse(request, 503, "signed before this proxy began")  # clients sign again
        client = judge(request)
        if isinstance(client, Fault):
            return _refuse(request, client.status, client.reason)
        request.state.connection.known()
        limit = MAX_PUSH_BYTES if call == "push-messages" else max_body_bytes
        body = _bounded(request, limit, coming, client, max_body_bytes)
        try:
            if call == "push-messages":
                whole = b"".join([chunk async for chunk in body])
                if fault := push_fault(whole):
                    notes.tell(Fault(403, fault, client), request)
                    return _refuse(request, 403, fault)
                answer = await _send(request, call, whole)
            else:
                answer = await _send(request, call, body)
        except _TooLargeError as error:
            return _refuse(request, 413, str(error))
        except httpx.TransportError as error:
            return _refuse(request, 503, f"Flower's server does not answer: {error!r}")
        except ClientDisconnect:
            return _refuse(request, 400, "the connection broke off")
        finally:
            await body.aclose()
        return StreamingResponse(
            answer.aiter_raw(),
            status_code=answer.status_code,
            headers={n: v for n, v in answer.headers.items() if passes(n)},
            background=BackgroundTask(answer.aclose),
        )

    app = Starlette(
        routes=[
            Route("/v1/fleet/{call}", pass_on, methods=["POST"]),
            Route(KNOCK, knock, methods=["POST"]),
        ],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def fleet_proxy(
    listen_host: str,
    port: int,
    upstream: str,
    certificates: Certificates | None,
    keys: Path,
    *,
    upstream_ca: Path | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    log: IO[bytes] | None = None,
    notes: int = subprocess.DEVNULL,
    signed_after: float = -math.inf,
) -> subprocess.Popen[bytes]:
    """Start the proxy in a process of its own; it ends with the process that started it.

    When this returns the port is open: who connects at once waits until the proxy has loaded.

    Args:
        listen_host: public address to listen on, e.g. "0.0.0.0".
        port: public port.
        upstream: Flower's server, "https://127.0.0.1:PORT"; loopback, or it is open to others.
        certificates: for TLS to the public; None for plain HTTP.
        keys: folder of the keys that may call.
        upstream_ca: authority of Flower's own certificate; by default that of `certificates`.
        max_body_bytes: a call with more is refused.
        log: where the proxy's log goes; by default the caller's stderr.
        notes: where it writes a line for whoever runs the server when a client is refused; as
            `stdout` of `subprocess.Popen`.
        signed_after: as for `make_app`; a proxy that takes the place of another, whose memory of
            signatures is lost, gives a time that none of them can have.

    Returns:
        The process; `terminate` ends it.

    Raises:
        InputError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in listen_host else socket.AF_INET
    try:
        listener = socket.create_server((listen_host, port), family=family)
    except OSError as error:
        raise InputError(
            f"cannot listen on {listen_host} port {port} ({error.strerror}); choose another port, "
            "or an address of this machine"
        ) from None
    command = [sys.executable, "-m", "fedpace.deploy.proxy", "--fd", str(listener.fileno()),
               "--upstream", upstream, "--keys", str(keys),
               "--max-body-bytes", str(max_body_bytes),
               f"--signed-after={signed_after}"]  # fmt: skip
    if certificates is not None:
        command += ["--certificate", str(certificates.certificate)]
        command += ["--key", str(certificates.key)]
        upstream_ca = upstream_ca or certificates.ca
    if upstream_ca is not None:
        command += ["--upstream-ca", str(upstream_ca)]
    with listener:
        # The child ends when its standard input does: with this process, however it dies.
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=notes, stderr=log, pass_fds=[listener.fileno()],
            start_new_session=True,  # an interrupt from the terminal is the parent's to handle
        )  # fmt: skip


class _TooLargeError(Exception):
    pass


class Notes:
    """Lines on standard output for whoever runs the server, each once in a while."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def tell(self, fault: Fault, request: Request) -> None:
        """Say that a client is refused, and why; all strangers are one."""
        now = time.monotonic()
        if now - self._told.get(fault.client, -math.inf) < NOTE_SECONDS:
            return
        self._told[fault.client] = now
        address = "?" if request.client is None else request.client.host
        who = fault.client or f"somebody at {address}"
        print(f"refused {who}: {fault.reason}", flush=True)


async def _bounded(
    request: Request, limit: int, coming: Counter[str], client: str, most: int
) -> AsyncGenerator[bytes, None]:
    """Pass a body on, and count it with what else its client has on its way."""
    if int(request.headers.get("content-length", 0)) > limit:
        raise _TooLargeError(f"a body of more than {limit} bytes")
    total = 0
    try:
        async for chunk in request.stream():
            total += len(chunk)
            coming[client] += len(chunk)
            if total > limit or coming[client] > most:
                raise _TooLargeError(f"more than {min(limit, most)} bytes on their way")
            yield chunk
    finally:
        coming[client] -= total
        if not coming[client]:
            del coming[client]


async def _send(
    request: Request, call: str, content: AsyncIterator[bytes] | bytes
) -> httpx.Response:
    client: httpx.AsyncClient = request.state.client
    headers = {n: v for n, v in request.headers.items() if passes(n)}
    if request.client is not None:
        headers["x-forwarded-for"] = request.client.host  # for Flower's log
    passed = client.build_request("POST", f"/v1/fleet/{call}", headers=headers, content=content)
    return await client.send(passed, stream=True)


def _refuse(request: Request, status: int, reason: str) -> Response:
    client = "?" if request.client is None else request.client.host
    _log.warning("refused %s from %s: %s", request.url.path, client, reason)
    return _closing(reason, status)


def _closing(text: str, status: int) -> Response:
    """Answer and end the connection, with whatever is still coming on it."""
    return Response(text, status, {"connection": "close"}, "text/plain")


def main() -> None:
    """Run the proxy in this process; `fleet_proxy` starts it so."""
    parser = argparse.ArgumentParser(prog="python -m fedpace.deploy.proxy", description=__doc__)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--upstream-ca", type=Path)
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--max-body-bytes", type=int, default=MAX_BODY_BYTES)
    parser.add_argument("--signed-after", type=float, default=-math.inf)
    parser.add_argument("--listen", metavar="HOST:PORT", default="127.0.0.1:9092")
    parser.add_argument("--fd", type=int, help="a socket that listens already")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    host, _, port = options.listen.rpartition(":")
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(
                options.upstream, options.upstream_ca, options.max_body_bytes, options.keys,
                options.signed_after,
            ),
            http=GuardedConnection, ws="none",
            host=host.strip("[]"), port=int(port), ssl_certfile=options.certificate,
            ssl_keyfile=options.key, access_log=False, log_level="warning", proxy_headers=False,
            server_header=False, timeout_graceful_shutdown=5,
        )
    )  # fmt: skip
    if options.fd is None:
        server.run()
        return

    def end_with_parent() -> None:
        while os.read(0, 1024):  # sys.stdin would hold a lock when the interpreter ends
            pass
        server.should_exit = True

    threading.Thread(target=end_with_parent, daemon=True).start()
    with socket.socket(fileno=options.fd) as listener:
        os.set_inheritable(options.fd, False)
        server.run(sockets=[listener])


if __name__ == "__main__":
    main()
