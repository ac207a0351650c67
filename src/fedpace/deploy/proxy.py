"""The door of a FedPace server: of Flower's three interfaces the network reaches one.

Flower 1.41 serves the calls of its clients (Fleet), of whoever submits code to run on server and
clients (Control), and of its own processes (Runtime) on one port, the last two without accounts.
So the server listens on loopback alone, and this proxy passes the calls of the clients from the
public address to it, and nothing else. Bodies stream through; what is checked on the way is in
`fleet_guard`.
"""

import argparse
import logging
import math
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from fedpace.core.errors import InputError
from fedpace.deploy.certificates import Certificates
from fedpace.deploy.fleet_guard import ReplayMemory, push_fault, signed_before

FLEET_CALLS = frozenset({
    "register-node", "activate-node", "deactivate-node", "unregister-node", "send-node-heartbeat",
    "pull-messages", "push-messages", "get-run", "get-fab", "push-object", "pull-object",
    "confirm-message-received",
})  # fmt: skip
"""What follows /v1/fleet/ in Flower 1.41, named one by one: a call it adds later is closed."""
MAX_BODY_BYTES = 256 * 2**20
"""Flower's server holds a body whole before it looks at the key, so someone must set a limit."""
MAX_PUSH_BYTES = 4 * 2**20
"""A push names its objects and does not hold them; it is read whole to be checked."""

_log = logging.getLogger("fedpace.proxy")


def make_app(
    upstream: str,
    upstream_ca: Path | None,
    max_body_bytes: int,
    signed_after: float = -math.inf,
) -> Starlette:
    """Make the proxy.

    Args:
        upstream: Flower's server, "https://127.0.0.1:PORT".
        upstream_ca: certificate authority its certificate is checked against.
        max_body_bytes: a call with more is refused.
        signed_after: seconds since 1970; a call that was signed before is to be signed again.
    """
    replays = ReplayMemory()

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

    async def pass_on(request: Request) -> Response:
        call = request.path_params["call"]
        if call not in FLEET_CALLS:
            raise HTTPException(404)
        if signed_after > 0 and signed_before(request.headers.get("flwr-timestamp"), signed_after):
            return _refuse(request, 503, "signed before this proxy began")  # clients sign again
        if fault := replays.fault(request.headers.get("flwr-signature"), time.monotonic()):
            return _refuse(request, 401, fault)
        limit = MAX_PUSH_BYTES if call == "push-messages" else max_body_bytes
        body = _bounded(request, limit)
        try:
            if call == "push-messages":
                whole = b"".join([chunk async for chunk in body])
                if fault := push_fault(whole):
                    return _refuse(request, 403, fault)
                answer = await _send(request, call, whole)
            else:
                answer = await _send(request, call, body)
        except _TooLargeError:
            return _refuse(request, 413, f"a body of more than {limit} bytes")
        except httpx.TransportError as error:
            return _refuse(request, 503, f"Flower's server does not answer: {error!r}")
        except ClientDisconnect:
            return _refuse(request, 400, "the connection broke off")
        return StreamingResponse(
            answer.aiter_raw(),
            status_code=answer.status_code,
            headers={n: v for n, v in answer.headers.items() if _passes(n)},
            background=BackgroundTask(answer.aclose),
        )

    app = Starlette(routes=[Route("/v1/fleet/{call}", pass_on, methods=["POST"])],
                    lifespan=lifespan)  # fmt: skip
    app.router.redirect_slashes = False
    return app


def fleet_proxy(
    listen_host: str,
    port: int,
    upstream: str,
    certificates: Certificates | None,
    *,
    upstream_ca: Path | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    log: IO[bytes] | None = None,
    signed_after: float = -math.inf,
) -> subprocess.Popen[bytes]:
    """Start the proxy in a process of its own; it ends with the process that started it.

    When this returns the port is open: who connects at once waits until the proxy has loaded.

    Args:
        listen_host: public address to listen on, e.g. "0.0.0.0".
        port: public port.
        upstream: Flower's server, "https://127.0.0.1:PORT"; loopback, or it is open to others.
        certificates: for TLS to the public; None for plain HTTP.
        upstream_ca: authority of Flower's own certificate; by default that of `certificates`.
        max_body_bytes: a call with more is refused.
        log: where the proxy's log goes; by default the caller's stderr.
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
               "--upstream", upstream, "--max-body-bytes", str(max_body_bytes),
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
            command, stdin=subprocess.PIPE, stderr=log, pass_fds=[listener.fileno()],
            start_new_session=True,  # an interrupt from the terminal is the parent's to handle
        )  # fmt: skip


class _TooLargeError(Exception):
    pass


async def _bounded(request: Request, limit: int) -> AsyncIterator[bytes]:
    if int(request.headers.get("content-length", 0)) > limit:
        raise _TooLargeError
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise _TooLargeError
        yield chunk


async def _send(
    request: Request, call: str, content: AsyncIterator[bytes] | bytes
) -> httpx.Response:
    client: httpx.AsyncClient = request.state.client
    headers = {n: v for n, v in request.headers.items() if _passes(n)}
    if request.client is not None:
        headers["x-forwarded-for"] = request.client.host  # for Flower's log
    passed = client.build_request("POST", f"/v1/fleet/{call}", headers=headers, content=content)
    return await client.send(passed, stream=True)


def _passes(header: str) -> bool:
    known = ("accept", "content-type", "content-length", "content-encoding")
    return header in known or header.startswith("flwr-")


def _refuse(request: Request, status: int, reason: str) -> Response:
    client = "?" if request.client is None else request.client.host
    _log.warning("refused %s from %s: %s", request.url.path, client, reason)
    return Response(status_code=status)


def main() -> None:
    """Run the proxy in this process; `fleet_proxy` starts it so."""
    parser = argparse.ArgumentParser(prog="python -m fedpace.deploy.proxy", description=__doc__)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--upstream-ca", type=Path)
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
                options.upstream, options.upstream_ca, options.max_body_bytes, options.signed_after
            ),
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
