"""Devices, links and the rule that divides the band: what a round costs on the virtual clock."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpace.core.errors import InputError
from fedpace.core.profile import AllocationRule, Clients, Floats, System
from fedpace.wireless.bandwidth import Allocation, allocate_bandwidth
from fedpace.wireless.channel import faded, fading_gains, mean_faded, uplink
from fedpace.wireless.fading import typical_share_hz
from fedpace.wireless.gains import Gains
from fedpace.wireless.latency import start_seconds
from fedpace.wireless.service import Sending, serve_changing

__all__ = ["Network", "charge", "planning_clients"]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What the virtual clock charges for."""

    clients: Clients
    system: System
    gains: Gains | None = None
    """How links change within a round; None: they do not."""
    best_first: bool = False
    """Whether those whose links stand best are served first; else those who were ready first."""

    @property
    def allocation(self) -> AllocationRule:
        """Return the rule by which the system divides its band."""
        return self.system.allocation

    @property
    def fading(self) -> bool:
        """Say whether links fade anew each round."""
        return self.system.fading


def planning_clients(network: Network) -> Clients:
    """Return the clients as a planner should see them: with the links' mean over fading.

    What is said of a client's seconds outside a round, in a table or a figure, is of these, too.
    """
    if not network.fading:
        return network.clients
    share = typical_share_hz(network.system.bandwidth_hz, len(network.clients))
    return mean_faded(network.clients, share)


def charge(
    network: Network,
    seed: int,
    round_index: int,
    client: NDArray[np.int64],
    sketch_rank: NDArray[np.int64],
    upload_bits: Floats,
    download_bits: Floats,
    *,
    now: float | None = None,
) -> tuple[Floats, Allocation]:
    """Compute when the participants of a round send, and how the band is divided among them.

    A round that was trained once can so be charged again, on another network or by another rule.

    Args:
        network: devices, links, rule.
        seed: the run's seed; fading is drawn from its stream.
        round_index: 0, 1, 2, ...
        client: the participants' positions in the population, shape (M,).
        sketch_rank: k of each participant, shape (M,).
        upload_bits: what each participant sends, bit, shape (M,).
        download_bits: what each participant receives beforehand, bit, shape (M,).
        now: when the round begins, s on the clock of the run; links that change need it.

    Returns:
        When each starts to send, s, shape (M,), and the allocation; the round takes the
        allocation's latest finish and the system's overhead.

    Raises:
        InputError: links that change, on a clock that cannot follow them.
    """
    clients, system = network.clients, network.system
    every_rank, every_received = np.ones(len(clients)), np.zeros(len(clients))
    every_rank[client], every_received[client] = sketch_rank, download_bits
    start = start_seconds(clients, system, every_rank, every_received)[client]
    if network.gains is not None:
        return start, _served(network, network.gains, client, start, upload_bits, now)
    if network.fading:
        clients = faded(clients, fading_gains(seed, round_index, len(clients)))
    share = allocate_bandwidth(
        start,
        upload_bits,
        system.bandwidth_hz,
        **uplink(clients, client),
        max_bandwidth_hz=clients.max_bandwidth_hz[client],
        rule=network.allocation,
    )
    return start, share


def _served(
    network: Network,
    gains: Gains,
    client: NDArray[np.int64],
    start: Floats,
    upload_bits: Floats,
    now: float | None,
) -> Allocation:
    """The uploads of a round one after another, as `serve_changing` has them."""
    if now is None:
        raise InputError(
            "[network] gain_trace and gain_db are followed by the virtual clock alone; leave them "
            "out here, or use fedpace run without Flower"
        )
    sendings = [
        Sending(int(n), now + float(at), float(bits))
        for n, at, bits in zip(client, start, upload_bits, strict=True)
    ]
    band = network.system.bandwidth_hz
    served, _ = serve_changing(
        sendings, network.clients, gains, band, now=now, until=np.inf, arrivals=len(sendings),
        best_first=network.best_first,
    )  # fmt: skip
    finish = np.array([float(u.arrived_seconds or now) - now for u in served])
    whole = band * np.ones(len(served))
    return Allocation(whole, finish, float(finish.max(initial=0.0)))
