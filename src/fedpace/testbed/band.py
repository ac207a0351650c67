"""From a band in hertz to rates of classes in bit/s.

A hertz of one client is worth more bits than one of another, so a band is no root of so many bit/s
except where all links have the same spectral efficiency. There a work-conserving band is the
kernel's own: one root, classes that borrow. Elsewhere the shares in hertz are made rates client by
client, R_n(b_n), and the root is their sum: exact while the same clients send, and a change of who
sends takes effect as soon as it is seen (docs/testbed.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpace.core.errors import RunError
from fedpace.core.profile import Clients, Floats
from fedpace.testbed.classes import Rate, gross
from fedpace.wireless.channel import bandwidth_for_rate, rate_bps, uplink

SIGNALLING_BPS = 32e3
"""Beside the band, for each client: what a node needs that asks whether there is work."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What root and leaves are set to, bit/s of frames."""

    root_bps: float
    leaves: Mapping[int, Rate]
    """Of every client."""


def even_split(total_hz: float, limit_hz: Floats) -> Floats:
    """Divide a band equally among those who send; what one cannot use goes to the others.

    Args:
        total_hz: W.
        limit_hz: most that each can use, shape (M,), Hz.

    Example:
        >>> even_split(12.0, np.array([np.inf, 2.0, np.inf])).tolist()
        [5.0, 2.0, 5.0]
    """
    share = np.zeros(len(limit_hz))
    left, order = total_hz, np.argsort(limit_hz, kind="stable")
    for i, n in enumerate(order):
        share[n] = min(limit_hz[n], left / (len(order) - i))
        left -= share[n]
    return share


def one_efficiency(clients: Clients) -> float | None:
    """Return the spectral efficiency of all links, bit/s/Hz; None where they differ."""
    efficiency = clients.spectral_efficiency
    if efficiency is None or np.any(efficiency != efficiency[0]):
        return None
    return float(efficiency[0])


def full_rates(clients: Clients, total_hz: float) -> Floats:
    """Return what each link carries alone in the band, shape (N,), bit/s of payload."""
    return rate_bps(np.minimum(clients.max_bandwidth_hz, total_hz), **uplink(clients))


def assigned(rates: Mapping[int, float], clients: Clients, total_hz: float) -> Shares:
    """Give some clients rates of their own that nobody may borrow, the others signalling.

    Args:
        rates: payload rate of each client that takes part, bit/s.
        clients: all N, with their links as they are now.
        total_hz: W.

    Raises:
        RunError: the rates need more than the band.
    """
    if rates:
        who, wanted = np.array(list(rates)), np.array(list(rates.values()))
        need = float(np.sum(bandwidth_for_rate(wanted, **uplink(clients, who))))
        if need > total_hz * (1 + 1e-6):
            raise RunError(
                f"clients {', '.join(map(str, who))} were given rates that need {need:.6g} Hz of a "
                f"band of {total_hz:.6g} Hz; divide one band among those who send"
            )
    pool = len(clients) * SIGNALLING_BPS
    leaves = dict.fromkeys(range(len(clients)), Rate(SIGNALLING_BPS, pool))
    leaves |= {n: Rate(gross(rate), gross(rate)) for n, rate in rates.items()}
    return Shares(gross(sum(rates.values())) + pool, leaves)


def split(senders: NDArray[np.int64], clients: Clients, total_hz: float) -> Shares:
    """Divide the band equally, in hertz, among those who send now."""
    hertz = even_split(total_hz, clients.max_bandwidth_hz[senders])
    rates = rate_bps(hertz, **uplink(clients, senders))
    return assigned(dict(zip(senders.tolist(), rates.tolist(), strict=True)), clients, total_hz)


def borrowing(
    participants: NDArray[np.int64], clients: Clients, total_hz: float, efficiency: float
) -> Shares:
    """Divide one root equally among the participants; what lies idle the kernel lends."""
    root = gross(efficiency * total_hz)
    own = gross(1.0) * full_rates(clients, total_hz)
    signalling = min(SIGNALLING_BPS, root / (4 * len(clients)))
    share = (root - signalling * (len(clients) - len(participants))) / max(1, len(participants))
    leaves = {n: Rate(signalling, max(signalling, own[n])) for n in range(len(clients))}
    leaves |= {n: Rate(min(share, own[n]), own[n]) for n in participants.tolist()}
    return Shares(root, leaves)
