"""Pauses that are written into Flower 1.41's code and longer than a round, made shorter.

A node looks for work every 3 s and for a finished answer every 0.5 s; whoever asks for a part of a
message that is still on its way asks again after 1 s, then 2 s. None of these has an option, so the
names are replaced where they are used. Where a later Flower no longer has them, the replacement
has no effect, and rounds take longer.
"""

import importlib
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from fedpace.deploy.upload_times import VARIABLE, timed

POLL_SECONDS = 0.5
"""Between a node's looks for work. A look costs the server a few milliseconds, and the uplink
about 800 bytes, which a small adapter notices."""
BACKOFF_SECONDS = 0.05
"""Between looks for what is on its way already, on this machine."""
REMOTE_BACKOFF_SECONDS = 0.25
"""The same at the other end of a link: each look is a request of about 900 bytes."""


TIMEOUT_VARIABLE = "FEDPACE_NODE_TIMEOUT"
"""Environment variable: seconds that a node gives the server for an answer, in place of 30."""
SLOWEST_BYTES_PER_SECOND = 1000.0
"""What an uplink carries at least: a node gives each answer as much longer as its question takes to
leave, or it would give up an update that is on its way, and send it again and again."""


def set_timeout() -> None:
    """Give answers as long as the environment says, and their questions' bytes take, in a node."""
    client: Any = importlib.import_module("flwr.supercore.protobuf.client").ProtobufClient
    seconds = os.environ.get(TIMEOUT_VARIABLE)
    if seconds is not None:
        client.__init__.__kwdefaults__["timeout"] = float(seconds)
    ask = client._unary_unary

    def patient(self: Any, *, request: Any, timeout: float | None = None, **rest: Any) -> Any:
        if timeout is None:
            timeout = self._client.timeout.read + request.ByteSize() / SLOWEST_BYTES_PER_SECOND
        return ask(self, request=request, timeout=timeout, **rest)

    client._unary_unary = patient


SIGNED_VARIABLE = "FEDPACE_SIGNED_SECONDS"
"""Environment variable: how old a signature may be when Flower's server has read a call's body."""
SIGNED_SECONDS = 7200.0
"""Behind the proxy, which checks a call's time at its beginning: Flower checks it at the end, and
would refuse every body that takes more than its 305 s."""


def allow_slow_uploads() -> None:
    """Take signatures for as long as the environment says, in the server's process."""
    seconds = os.environ.get(SIGNED_VARIABLE)
    if seconds is not None:
        module: Any = importlib.import_module("flwr.superlink.routers.fleet.node_auth")
        module.TIMESTAMP_TOLERANCE = float(seconds)


def time_uploads() -> None:
    """Write down how fast bodies come where the environment says, in the server's process."""
    file = os.environ.get(VARIABLE)
    if file is not None:
        uvicorn: Any = importlib.import_module("uvicorn")
        run = uvicorn.run
        uvicorn.run = lambda app, **options: run(timed(app, Path(file)), **options)


def shorten_node() -> None:
    """Shorten the loop of a node, in the process that runs it."""
    loop: Any = importlib.import_module("flwr.supernode.start_client_internal")
    loop.time = _QuickTime()
    _quick(loop, "pull_objects", REMOTE_BACKOFF_SECONDS)


NEWS_VARIABLE = "FEDPACE_NODE_NEWS"
"""Environment variable: a file descriptor that gets a byte when a node has work for its app."""


def tell_news() -> None:
    """Tell of work where the environment says, in the process that runs a node.

    Without it an app must ask its node again and again: at 20 requests a second they take more of a
    processor than all else that an idle node does.
    """
    descriptor = os.environ.get(NEWS_VARIABLE)
    loop: Any = importlib.import_module("flwr.supernode.start_client_internal")
    pull = getattr(loop, "_pull_and_store_message", None)
    if descriptor is None or pull is None:
        return

    def pulled(**given: Any) -> Any:
        run = pull(**given)
        if run is not None:
            os.write(int(descriptor), b".")
        return run

    loop._pull_and_store_message = pulled


def shorten_app() -> None:
    """Shorten how an app waits for the parts of a task, in the process that does tasks."""
    _quick(
        importlib.import_module("flwr.supernode.runtime.run_clientapp"),
        "pull_and_inflate_object_from_tree",
    )


def _quick(module: Any, function: str, seconds: float = BACKOFF_SECONDS) -> None:
    original = getattr(module, function, None)
    if original is not None and not isinstance(original, partial):
        quick = partial(original, initial_backoff=seconds, backoff_cap=1.0)
        setattr(module, function, quick)


class _QuickTime:
    """The module `time`, with shorter sleeps."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    @staticmethod
    def sleep(seconds: float) -> None:
        # Flower pauses 3 s between looks for work, 0.5 s between looks for an answer to hand in.
        time.sleep(POLL_SECONDS if seconds >= 3 else min(seconds, BACKOFF_SECONDS))
