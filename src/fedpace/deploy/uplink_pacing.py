"""Who holds a client to the uplink rate that the server assigned: nobody, or a paced sender.

A controller opens a client's `Link` for as long as it takes part: it says where the node connects,
and is told each rate before the answer it is meant for leaves. Linux traffic control would be one
more such function, whose `pace` sets the rate of the interface.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from fedpace.deploy.flower_patches import TIMEOUT_VARIABLE
from fedpace.deploy.tcp_relay import open_relay
from fedpace.engines.flower.client import Pace

SLOW_ANSWER_SECONDS = 3600.0
"""Patience of a paced node: what it has sent still waits in its machine's buffers, so that the 30 s
which Flower gives an answer could end before the last byte has left."""


@dataclass(frozen=True, slots=True)
class Link:
    """How a client's node reaches the server."""

    server: str
    """"HOST:PORT" that the node is given."""
    pace: Pace
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the node's process, beside its parent's."""


Controller = Callable[[str, bool], AbstractContextManager[Link]]
"""Server, "HOST:PORT", and whether it is reached by TLS -> the link to it."""


@contextmanager
def unpaced(server: str, tls: bool) -> Iterator[Link]:
    """Connect directly; the assigned rate is not enforced."""
    yield Link(server, lambda rate_bps, upload_bytes: None)


@contextmanager
def paced(server: str, tls: bool) -> Iterator[Link]:
    """Send through a relay on this machine that keeps to the rate.

    All that the node sends is paced: answers, and its questions in between at the last rate. What
    it receives is not.
    """
    host, _, port = server.rpartition(":")
    with open_relay(host.strip("[]"), int(port), tunnel=tls) as relay:

        def pace(rate_bps: float, upload_bytes: int) -> None:
            relay.pace(rate_bps)

        address = f"127.0.0.1:{relay.port}"
        patience = {TIMEOUT_VARIABLE: str(SLOW_ANSWER_SECONDS)}
        if not tls:
            yield Link(address, pace, patience)
            return
        # The node goes on to call the server by its name, so that its certificate is checked.
        names = ("HTTPS_PROXY", "https_proxy"), ("NO_PROXY", "no_proxy")
        through = {name: f"http://{address}" for name in names[0]}
        yield Link(server, pace, {**patience, **through, **dict.fromkeys(names[1], "")})
