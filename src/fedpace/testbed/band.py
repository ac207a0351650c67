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
from fedpace.wireless.bandwidth import allocate_bandwidth
from fedpace.wireless.channel import bandwidth_for_rate, model_of, rate_bps, uplink

SIGNALLING_BPS = 32e3
"""Beside the band, for each client: what a node needs that asks whether there is work."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What root and leaves are set to, bit/s of frames."""

    root_bps: float
    leaves: Mapping[int, Rate]
    """Rates of every client."""


def one_efficiency(clients: Clients) -> float | None:
    """Return the spectral efficiency of all links, bit/s/Hz; None where they differ."""
    if not model_of(uplink(clients)).proportional:
        return None
    efficiency = rate_bps(1.0, **uplink(clients))
    if np.any(efficiency != efficiency[0]):
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


def within_band(rates: Mapping[int, float], clients: Clients, total_hz: float) -> dict[int, float]:
    """Lower rates that together need more than the band, each by the same part of its hertz.

    Args:
        rates: payload rate of each client that sends or will, bit/s.
        clients: all N, with their links as they are now.
        total_hz: W.
    """
    who, wanted = np.array(list(rates), dtype=np.int64), np.array(list(rates.values()))
    need = bandwidth_for_rate(wanted, **uplink(clients, who))
    part = min(1.0, total_hz / float(need.sum()))
    fits = rate_bps(part * need, **uplink(clients, who)) if part < 1 else wanted
    return dict(zip(who.tolist(), fits.tolist(), strict=True))


def split(left_bits: Mapping[int, float], clients: Clients, total_hz: float) -> Shares:
    """Divide the band among those who send now so that all would end together.

    Whoever is at its own limit has that, and what it leaves goes to the others: so the virtual
    clock divides a band that never idles (`wireless.work_conserving`).

    Args:
        left_bits: what each client that sends has left, bit, above 0.
        clients: all N, with their links as they are now.
        total_hz: W.
    """
    bits, own = dict(left_bits), clients.max_bandwidth_hz
    hertz: dict[int, float] = {}
    while bits:
        who = np.array(list(bits), dtype=np.int64)
        share = allocate_bandwidth(
            np.zeros(len(who)), list(bits.values()), total_hz - sum(hertz.values()),
            max_bandwidth_hz=own[who], rule="equal-finish", **uplink(clients, who),
        ).bandwidth_hz  # fmt: skip
        limited = share >= own[who] * (1 - 1e-9)
        ends = limited if limited.any() and not limited.all() else np.ones_like(limited)
        hertz |= dict(zip(who[ends].tolist(), share[ends].tolist(), strict=True))
        bits = {n: left for n, left in bits.items() if n not in hertz}
    rates = {n: float(rate_bps(b, **uplink(clients, [n]))[0]) for n, b in hertz.items()}
    return assigned(rates, clients, total_hz)


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
