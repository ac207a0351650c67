r"""The classical upper bound on the mean round time, in O(N) once the clients are sorted.

All compute, then send one after another:

.. math:: E[T] \le \sum_n q_n v_n + E\big[\max_n I_n \tau'_n\big], \qquad
    E[\max] = \int_0^\infty \Big(1 - \prod_{\tau'_n > s} (1 - q_n)\Big)\, ds.

A client without a limit of its own has tau' = tau, and v is the seconds of its upload alone in the
band, which at constant spectral efficiency is the published t / W. One with a limit of c below the
band W sends for u seconds at that limit; then v = u c / W and tau' = tau + u - v. It holds for
every link, because the rate is concave in the bandwidth: sum v seconds after the last tau' the
needs fit the band.

Source: the bound by which independent sampling was planned before (Geng et al., ICC 2024,
arXiv 2402.10097, by its abstract); in this form derived in docs/round-time.md. It is 20 to 50 %
above the mean, but rises and falls with it, so it finds starting points cheaply.
"""

import numpy as np

from fedpace.core.profile import Clients, Floats, System
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.latency import start_seconds, start_seconds_per_rank, upload_bits

__all__ = ["band_seconds", "bound_and_gradient", "solo_seconds"]

_LEAST_ABSENCE = 1e-15
"""Floor of 1 - q, so that the product without one factor is a quotient also at q = 1."""


def bound_and_gradient(
    sampling_probability: Floats,
    sketch_rank: Floats,
    clients: Clients,
    system: System,
    count: Floats | float = 1.0,
) -> tuple[float, Floats, Floats]:
    """Upper bound on the mean duration of a round, with its derivatives.

    Args:
        sampling_probability: q, shape (N,), in (0, 1].
        sketch_rank: k, shape (N,), real-valued.
        clients: N clients; n takes part with probability q_n availability_n.
        system: what they share.
        count: how many clients each one stands for, shape (N,).

    Returns:
        The bound, s; its derivatives in q and in k, each of shape (N,), s.

    Example:
        >>> clients = Clients.from_columns(
        ...     data_weight=[1, 1], step_seconds=[1, 3], spectral_efficiency=[1, 1])
        >>> system = System(bandwidth_hz=1e6, lora_rank=1, local_steps=1)
        >>> bound_and_gradient(np.array([0.5, 0.5]), np.ones(2), clients, system)[0]
        2.75
    """
    joins = sampling_probability * clients.availability
    rate, part = _solo_rate(clients, system)
    bits = upload_bits(system, sketch_rank)
    start = start_seconds(clients, system, sketch_rank) + bits / rate * (1 - part)
    load = count * bits / rate * part
    slowest, by_joining, by_start = _expected_maximum(joins, start, count)
    bound = system.overhead_seconds + float(joins @ load) + slowest
    start_slope = start_seconds_per_rank(clients, system)
    start_slope = start_slope + system.bits_per_rank / rate * (1 - part)
    by_k = joins * load / bits * system.bits_per_rank + by_start * start_slope
    return bound, (load + by_joining) * clients.availability, by_k


def band_seconds(clients: Clients, system: System, sketch_rank: Floats) -> Floats:
    """Seconds for which an upload fills the band, t_n / W; shape (N,)."""
    rate, part = _solo_rate(clients, system)
    return upload_bits(system, sketch_rank) / rate * part


def solo_seconds(clients: Clients, system: System, sketch_rank: Floats) -> Floats:
    """Round time of each client alone, with the whole band or its own limit; shape (N,), s."""
    upload = upload_bits(system, sketch_rank) / _solo_rate(clients, system)[0]
    return start_seconds(clients, system, sketch_rank) + upload


def _solo_rate(clients: Clients, system: System) -> tuple[Floats, Floats]:
    """Rate of each client alone, bit/s, and the part of the band that it can use."""
    usable = np.minimum(clients.max_bandwidth_hz, system.bandwidth_hz)
    return rate_bps(usable, **uplink(clients)), usable / system.bandwidth_hz


def _expected_maximum(
    probability: Floats, start: Floats, count: Floats | float
) -> tuple[float, Floats, Floats]:
    """E[max I_n tau_n] and its derivatives in q and in tau."""
    order = np.argsort(start, kind="stable")
    tau = start[order]
    absent = np.maximum(1 - probability[order], _LEAST_ABSENCE)
    many = np.broadcast_to(count, absent.shape)[order]
    absence = many * np.log(absent)
    none_from = np.exp(np.cumsum(absence[::-1])[::-1])  # nobody at or behind position i
    rise = np.diff(tau, prepend=0.0)
    mean = float(rise @ (1 - none_from))
    by_probability, by_start = np.empty_like(tau), np.empty_like(tau)
    by_probability[order] = many * np.cumsum(rise * none_from) / absent
    by_start[order] = -np.expm1(absence) * np.append(none_from[1:], 1.0)
    return mean, by_probability, by_start
