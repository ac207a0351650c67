"""The whole network of a testbed, made and removed again."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np

from fedpace.core.errors import InputError
from fedpace.testbed import links
from fedpace.testbed.band import SIGNALLING_BPS, full_rates
from fedpace.testbed.classes import Classes, Rate
from fedpace.testbed.spaces import remove, run_name, scratch
from fedpace.wireless.network import Network


@dataclass(frozen=True, slots=True)
class Shaped:
    """Namespaces, links and classes of one testbed."""

    run: str
    """Its name; those of its namespaces begin with it."""
    folder: Path
    """For what its processes write on the way."""
    classes: Classes
    """Classes of the access point's port to the server: all clients signal, none has band yet."""


@contextmanager
def shaped_network(clients: int) -> Iterator[Shaped]:
    """Make a network of so many clients; all of it, and what runs in it, ends with the context.

    Raises:
        InputError: more than a testbed has room for.
        RunError: the kernel refuses.
    """
    if clients > links.MOST_CLIENTS:
        raise InputError(f"[data] clients = {clients}: a testbed has at most {links.MOST_CLIENTS} "
                         "namespaces; use fewer")  # fmt: skip
    run = run_name()
    with _interruptible(), ExitStack() as stack:
        stack.callback(remove, run)
        folder = stack.enter_context(scratch(run))
        links.build(run, clients)
        pool = clients * SIGNALLING_BPS
        leaves = {links.client(run, n).address: Rate(SIGNALLING_BPS, pool) for n in range(clients)}
        yield Shaped(run, folder, stack.enter_context(
            Classes(links.access_point(run), links.SERVER_PORT, pool, leaves)
        ))  # fmt: skip


def limit_links(run: str, network: Network) -> None:
    """Shape every device's own link: up to what it carries alone in the band, down as told.

    With fading its own link is left alone: what it carries changes from round to round, and its
    class at the access point has it.
    """
    own = full_rates(network.clients, network.system.bandwidth_hz)
    down = network.system.downlink_bps
    for n, rate in enumerate(own.tolist()):
        if not network.fading:
            links.limit_link(links.client(run, n).space, "eth0", rate)
        if np.isfinite(down):
            links.limit_link(links.access_point(run), f"c{n}", down)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have a request to terminate clean up as an interrupt from the terminal does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
