r"""How long a round takes, as a distribution: mean, quantiles, and their gradients.

Client n joins a round independently with probability q_n. At time s it needs the bandwidth w_n(s)
that gives the rate d_n / (s - tau_n): infinite if it has not started to send, or if its link or its
own limit cannot give that rate. All finish together, so the round has ended by s exactly if the
participants' needs fit the band, T <= s iff sum_n I_n w_n(s) <= W, and

.. math:: E[T] = \int_0^\infty \big(1 - P(T \le s)\big)\, ds.

The law used here is that of a band, and of clients' own limits, with a flutter of a few percent
(`load_law`); nothing else is approximated. Derived and measured in docs/round-time.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_ndtr

from fedpace.core.errors import InputError
from fedpace.core.profile import Clients, Floats, System
from fedpace.planning.load_law import BandFlutter, band_flutter, fit_gradient, fit_probability
from fedpace.planning.round_nodes import Nodes, place_nodes
from fedpace.wireless.channel import bandwidth_for_rate, rate_bps, uplink
from fedpace.wireless.latency import start_seconds, start_seconds_per_rank, upload_bits

__all__ = ["mean_and_gradient"]

_FAST = 12
"""Waves of the flutter where a planner asks again and again: a spread of 6 %."""
_PLACING = 6
_CHUNK = 1 << 15
"""Complex numbers held at a time, few enough for a processor's cache."""
_LARGEST_LOAD = 60.0
"""A client that needs 60 bands can as well need infinitely many; 0 * inf is thus avoided."""


def mean_and_gradient(
    sampling_probability: ArrayLike,
    sketch_rank: ArrayLike,
    clients: Clients,
    system: System,
    *,
    terms: int = _FAST,
    nodes: Nodes | None = None,
) -> tuple[float, Floats, Floats]:
    r"""Mean duration of a round, with its exact derivatives.

    Computes overhead + the integral of 1 - P(T <= s) over s by the trapezoidal rule on the nodes
    of `place_nodes`, with P(T <= s) = E over xi of P(sum_n I_n w_n(s) <= W xi). The derivatives are
    those of this number, including the motion of the nodes with k. The number is smooth but for
    steps of about 1e-5 of itself where the choice of nodes changes; give `nodes` to keep them.

    Args:
        sampling_probability: q, shape (N,), in (0, 1].
        sketch_rank: k, shape (N,), real-valued, above 0.
        clients: N clients; n takes part with probability q_n availability_n.
        system: what they share.
        terms: waves of the flutter; its spread is about 0.75 / terms, the cost grows with it.
        nodes: from `place_nodes`; by default chosen afresh.

    Returns:
        E[T], s; dE[T]/dq, shape (N,), s; dE[T]/dk, shape (N,), s.

    Raises:
        InputError: a probability outside (0, 1] or a rank not above 0; names the client.
    """
    law = _Round.of(sampling_probability, sketch_rank, clients, system)
    flutter = band_flutter(terms)
    nodes = law.nodes() if nodes is None else nodes
    seconds = nodes.seconds(law.start, law.solo)
    order = np.argsort(seconds, kind="stable")
    nodes, seconds = nodes.take(order), seconds[order]
    width = np.diff(seconds)
    reach = (np.append(width, 0.0) + np.append(0.0, width)) / 2
    value, slope = np.empty(len(seconds)), np.empty(len(seconds))
    d_q, d_start, d_bits = np.zeros((3, len(law.start)))
    for part in law.chunks(len(seconds), terms):
        at = law.gradient(seconds[part], flutter)
        value[part], slope[part] = at.value, -at.d_start.sum(axis=0)
        d_q -= at.d_probability @ reach[part]
        d_start -= at.d_start @ reach[part]
        d_bits -= at.d_bits @ reach[part]
    mean = system.overhead_seconds + float(reach @ (1 - value))
    around = np.pad(value, 1, mode="edge")
    by_start, by_solo = nodes.pull_back(
        (around[2:] - around[:-2]) / 2 - reach * slope, len(law.start)
    )
    d_bits += by_solo * law.solo / law.bits
    d_k = law.rank_derivative(d_start + by_start, d_bits, clients, system)
    return mean, d_q * clients.availability, d_k


@dataclass(frozen=True, slots=True, eq=False)
class _Gradient:
    """P(T <= s) at M times, shape (M,), and its derivatives, shape (N, M)."""

    value: Floats
    d_probability: Floats
    d_start: Floats
    d_bits: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Round:
    """N clients at given ranks, as the law of the round time sees them; arrays of shape (N,)."""

    probability: Floats
    start: Floats
    """tau, s."""
    solo: Floats
    """u: seconds of an upload alone in the band, or at the client's own limit if that is less."""
    bits: Floats
    limit: Floats
    """The client's own limit as a share of the band."""
    link: Mapping[str, Floats]
    """One column, shape (N, 1), as `channel` takes it."""
    band: float

    @classmethod
    def of(
        cls,
        sampling_probability: ArrayLike,
        sketch_rank: ArrayLike,
        clients: Clients,
        system: System,
    ) -> "_Round":
        q = _checked("sampling_probability", sampling_probability, clients, 1.0)
        k = _checked("sketch_rank", sketch_rank, clients, np.inf)
        bits, link = upload_bits(system, k), uplink(clients)
        usable = np.minimum(clients.max_bandwidth_hz, system.bandwidth_hz)
        return cls(
            probability=q * clients.availability,
            start=start_seconds(clients, system, k),
            solo=bits / rate_bps(usable, **link),
            bits=bits,
            limit=clients.max_bandwidth_hz / system.bandwidth_hz,
            link={name: column[:, None] for name, column in link.items()},
            band=system.bandwidth_hz,
        )

    def nodes(self) -> Nodes:
        """Place nodes by a coarser law of the same kind."""
        flutter = band_flutter(_PLACING)
        return place_nodes(self.probability, self.start, self.solo, lambda s: self.cdf(s, flutter))

    def cdf(self, seconds: Floats, flutter: BandFlutter) -> Floats:
        """P(T <= s) without the overhead, shape (M,)."""
        value = np.empty(len(seconds))
        for part in self.chunks(len(seconds), len(flutter.exponents)):
            load, _, _ = self._load(seconds[part])
            accept, _ = self._accept(load, flutter)
            value[part] = fit_probability(load, self.probability, flutter, accept)
        return value

    def gradient(self, seconds: Floats, flutter: BandFlutter) -> _Gradient:
        """`cdf` with its derivatives in q, tau and d."""
        load, fall, left = self._load(seconds)
        accept, d_log = self._accept(load, flutter)
        fit = fit_gradient(load, self.probability, flutter, accept)
        d_load = fit.d_load if d_log is None else fit.d_load + fit.d_log_accept * d_log
        d_start = d_load * fall
        return _Gradient(fit.value, fit.d_probability, d_start, d_start * left / self.bits[:, None])

    def rank_derivative(
        self, d_start: Floats, d_bits: Floats, clients: Clients, system: System
    ) -> Floats:
        """Chain rule from tau and d to k; both are affine in k."""
        return d_start * start_seconds_per_rank(clients, system) + d_bits * system.bits_per_rank

    def chunks(self, count: int, terms: int) -> list[slice]:
        """Slices of the nodes whose arrays fit the cache."""
        size = max(1, _CHUNK // (len(self.start) * terms))
        return [slice(i, i + size) for i in range(0, count, size)]

    def _load(self, seconds: Floats) -> tuple[Floats, Floats, Floats]:
        """Return x = w / W, -dx/ds and s - tau, each of shape (N, M)."""
        left = seconds - self.start[:, None]
        bits = self.bits[:, None]
        sends = left > 0
        left[~sends] = 1.0
        rate = bits / left
        load = bandwidth_for_rate(rate, **self.link) / self.band
        sends &= load < _LARGEST_LOAD
        load = np.where(sends, load, _LARGEST_LOAD)
        if "snr_hz" in self.link:
            ratio = self.link["snr_hz"] / self.band / load
            slope = (np.log1p(ratio) - ratio / (1 + ratio)) * (self.band / np.log(2))
            fall = rate / (slope * left)
        else:
            fall = load / left
        fall[~sends] = 0.0
        return load, fall, left

    def _accept(self, load: Floats, flutter: BandFlutter) -> tuple[Floats | None, Floats | None]:
        """Chance that a client's own limit, with a log-normal flutter, allows its load.

        Return it and the derivative of its logarithm in the load; None where no limit binds.
        """
        own = self.limit < 1
        if not own.any():
            return None, None
        accept, d_log = np.ones_like(load), np.zeros_like(load)
        x, spread = load[own], flutter.spread
        # E[1/xi] = 1 for ln xi of variance v and mean v/2.
        y = np.maximum(spread / 2 - np.log(x / self.limit[own, None]) / spread, -30.0)
        log_accept = log_ndtr(y)
        accept[own] = np.exp(log_accept)
        d_log[own] = -np.exp(-(y**2) / 2 - log_accept) / (np.sqrt(2 * np.pi) * spread * x)
        return accept, d_log


def _checked(name: str, value: ArrayLike, clients: Clients, most: float) -> Floats:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != (len(clients),):
        raise InputError(f"{name} has shape {array.shape}; there are {len(clients)} clients")
    wrong = ~((array > 0) & (array <= most))
    if np.any(wrong):
        n = int(np.argmax(wrong))
        rule = "be above 0" if most == np.inf else f"lie in (0, {most:g}]"
        raise InputError(
            f"{name} of client {str(clients.client_id[n])!r} is {array[n]:g}; it must {rule}"
        )
    return array
