"""The access point, the server and the clients as namespaces, and the links between them.

::

    client 0 --- c0 |              |
    client 1 --- c1 | bridge lan0  | server --- server
    ...             |              |

Every link is a veth pair. What all clients send leaves the access point by its one port to the
server, where the band is divided; what each receives leaves by its own port; and a device's own
limit stands at its end of its link.
"""

from dataclasses import dataclass

from fedpace.testbed.classes import gross
from fedpace.testbed.kernel import call
from fedpace.testbed.spaces import make_space

SERVER_ADDRESS = "10.77.0.1"
MOST_CLIENTS = 1000
"""Addresses of clients are 10.77.1.1 and above; a bridge has 1,024 ports."""
BRIDGE = "lan0"
SERVER_PORT = "server"
"""The access point's interface towards the server."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something of a testbed is."""

    space: str
    address: str


def access_point(run: str) -> str:
    """Return the name of the access point's namespace."""
    return f"{run}-ap"


def server(run: str) -> Place:
    """Return where the server is."""
    return Place(f"{run}-server", SERVER_ADDRESS)


def client(run: str, number: int) -> Place:
    """Return where a client is."""
    return Place(f"{run}-c{number}", f"10.77.{1 + number // 250}.{1 + number % 250}")


def build(run: str, clients: int) -> None:
    """Make namespaces and links, unshaped."""
    middle = access_point(run)
    make_space(middle)
    call("ip", "-n", middle, "link", "add", "name", BRIDGE, "type", "bridge")
    call("ip", "-n", middle, "link", "set", "dev", BRIDGE, "up")
    _attach(middle, SERVER_PORT, server(run))
    for number in range(clients):
        _attach(middle, f"c{number}", client(run, number))


def limit_link(space: str, device: str, payload_bps: float | None) -> None:
    """Shape what leaves by an interface to a payload's rate; None takes the limit away."""
    if payload_bps is None:
        call("tc", "-n", space, "qdisc", "delete", "dev", device, "root", accept_failure=True)
        return
    rate = f"{max(8, round(gross(payload_bps)))}bit"
    shown = call("tc", "-n", space, "class", "show", "dev", device)
    if "htb" not in shown:
        call("tc", "-n", space, "qdisc", "replace", "dev", device, "root", "handle", "1:",
             "htb", "default", "1")  # fmt: skip
    verb = "change" if "htb" in shown else "add"
    call("tc", "-n", space, "class", verb, "dev", device, "parent", "1:", "classid", "1:1",
         "htb", "rate", rate, "quantum", 1514)  # fmt: skip


def _attach(middle: str, port: str, place: Place) -> None:
    make_space(place.space)
    call("ip", "link", "add", "name", port, "netns", middle,
         "type", "veth", "peer", "name", "eth0", "netns", place.space)  # fmt: skip
    for space, device in ((middle, port), (place.space, "eth0")):
        # A shaper must see frames, not the 64 kB pieces that a network card would cut up.
        call("ip", "-n", space, "link", "set", "dev", device, "gso_max_segs", 1)
    call("ip", "-n", middle, "link", "set", "dev", port, "master", BRIDGE, "up")
    call("ip", "-n", place.space, "addr", "add", f"{place.address}/16", "dev", "eth0")
    call("ip", "-n", place.space, "link", "set", "dev", "eth0", "up")
