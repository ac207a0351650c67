"""What a client needs before and while it sends: seconds until it starts, bits on the uplink.

Both are affine in the sketch rank k, which may be real-valued (a planner relaxes it). The source of
the affine form is docs/clock.md; measured devices fit it, with a small slope in k.
"""

import numpy as np
from numpy.typing import ArrayLike

from fedpace.core.profile import Clients, Floats, System
from fedpace.wireless.channel import rate_bps, uplink

__all__ = [
    "download_bits",
    "start_seconds",
    "start_seconds_per_rank",
    "upload_alone_seconds",
    "upload_bits",
]


def upload_bits(system: System, sketch_rank: ArrayLike) -> Floats:
    """Bits a client sends: d(k) = fixed_bits + bits_per_rank k.

    Args:
        system: gives the message sizes.
        sketch_rank: k, shape (N,), real or integer.

    Returns:
        d, shape (N,), bit.
    """
    return system.fixed_bits + system.bits_per_rank * np.asarray(sketch_rank, dtype=np.float64)


def upload_alone_seconds(clients: Clients, system: System, sketch_rank: ArrayLike) -> Floats:
    """Seconds a client sends when it has the whole band, or as much as its own cap leaves it.

    Args:
        clients: N clients; where links fade, as `network.planning_clients` has them.
        system: gives the band and the message sizes.
        sketch_rank: k, shape (N,), real or integer.

    Returns:
        Shape (N,), s.
    """
    band = np.minimum(system.bandwidth_hz, clients.max_bandwidth_hz)
    return np.asarray(upload_bits(system, sketch_rank) / rate_bps(band, **uplink(clients)))


def download_bits(system: System, sketch_rank: ArrayLike) -> Floats:
    """Bits a client receives before it trains.

    A client of the scaled sketch trains B S A and needs its own k components, as does one that
    trains the leading k; one of the residual sketch keeps the whole adapter in its forward pass and
    needs all r.

    Args:
        system: gives the message sizes, the sketch and r.
        sketch_rank: k, shape (N,), real or integer.

    Returns:
        Shape (N,), bit.
    """
    fixed, per_rank = system.download_fixed_bits, _download_bits_per_rank(system)
    received = system.sketch.received_rank(sketch_rank, system.lora_rank)
    return (system.fixed_bits if fixed is None else fixed) + per_rank * received


def start_seconds(
    clients: Clients,
    system: System,
    sketch_rank: ArrayLike,
    received_bits: ArrayLike | None = None,
) -> Floats:
    """When a client starts to send, from the start of the round: download, then H local steps.

    tau(k) = download_seconds + download_bits(k) / downlink_bps
    + H (step_seconds + k step_seconds_per_rank)

    Args:
        clients: N clients.
        system: gives H, the downlink and the message sizes.
        sketch_rank: k, shape (N,), real or integer.
        received_bits: what each client receives beforehand, bit, shape (N,); by default
            `download_bits`.

    Returns:
        tau, shape (N,), s.

    Example:
        >>> clients = Clients.from_columns(
        ...     data_weight=[1, 1], step_seconds=[0.1, 0.4], spectral_efficiency=[2, 1],
        ...     step_seconds_per_rank=[0.01, 0])
        >>> system = System(bandwidth_hz=1e6, lora_rank=16, local_steps=5)
        >>> start_seconds(clients, system, [4, 16]).round(12).tolist()
        [0.7, 2.0]
    """
    rank = np.asarray(sketch_rank, dtype=np.float64)
    step = clients.step_seconds + rank * clients.step_seconds_per_rank
    received = download_bits(system, rank) if received_bits is None else np.asarray(received_bits)
    download = clients.download_seconds + received / system.downlink_bps
    return download + system.local_steps * step


def start_seconds_per_rank(clients: Clients, system: System) -> Floats:
    """Derivative of `start_seconds` in the sketch rank, the same at every k.

    Args:
        clients: N clients.
        system: as for `start_seconds`.

    Returns:
        d tau / d k, shape (N,), s per rank component.
    """
    bits = 0.0 if system.sketch.whole else _download_bits_per_rank(system)
    download = bits / system.downlink_bps
    return system.local_steps * clients.step_seconds_per_rank + download


def _download_bits_per_rank(system: System) -> float:
    bits = system.download_bits_per_rank
    return system.bits_per_rank if bits is None else bits
