r"""The law of the round time at given sampling probabilities and ranks.

At time s client n needs the share x_n(s) of the band that sends d_n bits in the s - tau_n seconds
it has: infinite before it starts to send, or where its link cannot give that rate. The round has
ended by s exactly if the participants' shares fit the band and none exceeds its client's own limit.
`RoundLaw` gives the probability of that with a smoothed band (`band_smoothing`), and its
derivatives.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpace.core.errors import InputError
from fedpace.core.profile import AllocationRule, Clients, Floats, System
from fedpace.planning.round_time.band_share import band_share, own_limit_acceptance
from fedpace.planning.round_time.band_smoothing import BandSmoothing, band_smoothing
from fedpace.planning.round_time.load import Waves
from fedpace.planning.round_time.quadrature import (
    HatAverage,
    average_over_hats,
    hats,
    place_quadrature,
    reaches,
)
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.fading import typical_share_hz
from fedpace.wireless.latency import start_seconds, start_seconds_per_rank, upload_bits

__all__ = ["LawGradient", "RoundLaw"]

_PAIRS = 1 << 15
"""Pairs of client and time held at once, few enough for a processor's cache."""
_PLACING_TERMS = 6
"""Waves of the coarser law by which nodes are placed."""
_PLACING_CLIENTS = 5000
"""About how many clients that law sees, at most."""
_LARGEST_PLACING_PROBABILITY = 0.9
"""The most certain that a client is in one of the two laws by which nodes are placed."""


@dataclass(frozen=True, slots=True, eq=False)
class LawGradient:
    """P(T <= s) at M times, or its averages over M hats; derivatives of a weighted sum of them."""

    value: Floats
    """Shape (M,)."""
    d_seconds: Floats
    """Derivative of each value in its own s, shape (M,)."""
    d_probability: Floats
    """Derivative of the weighted sum in q, shape (N,); likewise the next two."""
    d_start: Floats
    d_bits: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Needs:
    """What N clients need at M times or hats."""

    waves: Waves
    fall: Floats
    """-dx/ds, shape (M, N)."""
    left: Floats
    """s - tau, shape (M, N), s."""
    accept_slope: Floats | None = None
    """d ln c / dx of the clients' own limits, shape (M, N); None where none binds."""
    hat: HatAverage | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RoundLaw:
    """N clients as the round time sees them; arrays of shape (N,)."""

    probability: Floats
    """Chance to take part: q times availability."""
    start: Floats
    """tau, s."""
    solo: Floats
    """u: seconds of an upload alone in the band, or at the client's own limit if that is less."""
    bits: Floats
    """d, bit."""
    limit: Floats
    """The client's own limit as a share of the band; 1 or more does not bind."""
    link: Mapping[str, Floats]
    """One column, as `channel` takes it."""
    band: float
    """W, Hz."""
    allocation: AllocationRule
    """How the band is divided. Distribution and mean here are those of "equal-finish"; for a band
    that never idles see `never_idle`."""
    efficiency: Floats | None = None
    """Where links fade, and `link` has the mean demand: its efficiency at a typical share of the
    band, bit/s/Hz, by which demands are spread. Seen by `never_idle` and `finish` alone."""

    @classmethod
    def of(
        cls,
        sampling_probability: ArrayLike,
        sketch_rank: ArrayLike,
        clients: Clients,
        system: System,
    ) -> "RoundLaw":
        """Prepare the law; see `mean_and_gradient` for the arguments and what is checked."""
        q = _checked("sampling_probability", sampling_probability, clients, 1.0)
        k = _checked("sketch_rank", sketch_rank, clients, np.inf)
        bits, link = upload_bits(system, k), uplink(clients)
        usable = np.minimum(clients.max_bandwidth_hz, system.bandwidth_hz)
        share = typical_share_hz(system.bandwidth_hz, len(clients))
        return cls(
            probability=q * clients.availability,
            start=start_seconds(clients, system, k),
            solo=bits / rate_bps(usable, **link),
            bits=bits,
            limit=clients.max_bandwidth_hz / system.bandwidth_hz,
            link=link,
            band=system.bandwidth_hz,
            allocation=system.allocation,
            efficiency=rate_bps(share, **link) / share if system.fading else None,
        )

    def __len__(self) -> int:
        return len(self.probability)

    def quadrature(self, fineness: float = 1.0) -> Floats:
        """Place nodes by a coarser law of the same kind."""
        smoothing = band_smoothing(_PLACING_TERMS)
        first = float(np.min(self.start + self._early(1 + 5 * smoothing.spread)))
        laws = [self.thinned(-(-len(self) // _PLACING_CLIENTS))]
        if laws[0].probability.max() > _LARGEST_PLACING_PROBABILITY:
            # Where a client never fails, look also at what its absence would change: dE/dq_n.
            seldom = np.minimum(laws[0].probability, _LARGEST_PLACING_PROBABILITY)
            laws.append(replace(laws[0], probability=seldom))
        return place_quadrature(
            first, lambda s: np.mean([law.cdf(s, smoothing) for law in laws], axis=0), fineness
        )

    def _early(self, bands: float) -> Floats:
        """Seconds of an upload alone in that many bands, shape (N,)."""
        return self.bits / rate_bps(bands * self.band, **self.link)

    def thinned(self, every: int) -> "RoundLaw":
        """One client stands for `every`: it joins more often, and loads a narrower band."""
        if every == 1:
            return self
        law = self._take(np.argsort(self.start + self.solo, kind="stable")[every // 2 :: every])
        often = np.clip(0.5 / law.probability.max(), 1, every)
        rest = every / often
        return replace(
            law, probability=law.probability * often, band=law.band / rest, limit=law.limit * rest
        )

    def empty(self) -> float:
        """Probability of a round without participants."""
        with np.errstate(divide="ignore"):
            return float(np.exp(np.log1p(-self.probability).sum()))

    def cdf(self, seconds: Floats, smoothing: BandSmoothing) -> Floats:
        """P(T <= s) without the round's overhead, shape (M,)."""
        value = np.empty(len(seconds))
        for part in self._parts(len(seconds)):
            products = smoothing.weights[:, None]
            for _, block in self._blocks():
                products = products * block._at(seconds[part], smoothing).waves.products()
            value[part] = products.sum(axis=0).real
        return np.clip(value, 0.0, 1.0)

    def gradient(self, seconds: float, smoothing: BandSmoothing) -> LawGradient:
        """`cdf` at one time, with its derivatives."""
        at = np.array([seconds])
        return self._differentiated(
            lambda block, rows, part: block._at(at, smoothing), np.ones(1), smoothing
        )

    def mean(self, quadrature: Floats, smoothing: BandSmoothing) -> LawGradient:
        """The averages of P(T <= s) over the hats of the nodes; derivatives of E[T]."""
        before, after = hats(quadrature)
        cut, cut_by_bits = self._cuts(quadrature, smoothing.spread)

        def over(block: "RoundLaw", rows: slice, part: slice) -> _Needs:
            return block._over(quadrature[part], before[part], after[part], cut[rows], smoothing)

        return self._differentiated(over, -reaches(quadrature), smoothing, cut_by_bits)

    def _differentiated(
        self,
        needs: Callable[["RoundLaw", slice, slice], _Needs],
        weight: Floats,
        smoothing: BandSmoothing,
        cut_by_bits: Floats | None = None,
    ) -> LawGradient:
        value, slope = np.empty(len(weight)), np.zeros(len(weight))
        d_probability, d_start, d_bits = np.zeros((3, len(self)))
        for part in self._parts(len(weight)):
            blocks = [(rows, needs(block, rows, part)) for rows, block in self._blocks()]
            products = smoothing.weights[:, None]
            for _, need in blocks:
                products = products * need.waves.products()
            value[part] = products.sum(axis=0).real
            for rows, need in blocks:
                by_probability, by_load, by_accept = need.waves.gradient(products)
                if need.accept_slope is not None:
                    by_load += by_accept * need.accept_slope
                by_left = -by_load * need.fall
                slope[part] += by_left.sum(axis=1)
                d_probability[rows] += _summed(weight[part], by_probability)
                d_start[rows] -= _summed(weight[part], by_left)
                d_bits[rows] -= _summed(weight[part], by_left * need.left) / self.bits[rows]
                if need.hat is not None and cut_by_bits is not None:
                    node, client = need.hat.cut
                    by_cut = by_left[need.hat.cut] * need.hat.left_slope
                    by_cut += by_accept[need.hat.cut] * need.hat.open_slope
                    by_cut *= weight[part][node]
                    moved = np.bincount(client, by_cut, by_load.shape[1])
                    d_start[rows] += moved
                    d_bits[rows] += moved * cut_by_bits[rows]
        return LawGradient(value, slope, d_probability, d_start, d_bits)

    def rank_derivative(
        self, d_start: Floats, d_bits: Floats, clients: Clients, system: System
    ) -> Floats:
        """Chain rule from tau and d to k: both are affine in k."""
        return d_start * start_seconds_per_rank(clients, system) + d_bits * system.bits_per_rank

    def _parts(self, count: int) -> list[slice]:
        """Slices of the times, such that one slice and all clients, or one block, fit the cache."""
        size = max(1, _PAIRS // len(self))
        return [slice(first, first + size) for first in range(0, count, size)]

    def _blocks(self) -> Iterator[tuple[slice, "RoundLaw"]]:
        if len(self) <= _PAIRS:
            yield slice(None), self
            return
        for first in range(0, len(self), _PAIRS):
            rows = slice(first, first + _PAIRS)
            yield rows, self._take(rows)

    def _take(self, index: slice | NDArray[np.int64]) -> "RoundLaw":
        link = {name: column[index] for name, column in self.link.items()}
        return RoundLaw(
            self.probability[index], self.start[index], self.solo[index], self.bits[index],
            self.limit[index], link, self.band, self.allocation,
            None if self.efficiency is None else self.efficiency[index],
        )  # fmt: skip

    def _at(self, seconds: Floats, smoothing: BandSmoothing) -> _Needs:
        """Needs at points."""
        left = seconds[:, None] - self.start
        load, fall = band_share(self.bits, left, self.link, self.band)
        if not (self.limit < 1).any():
            return _Needs(Waves(load, self.probability, smoothing), fall, left)
        accept, slope = own_limit_acceptance(load, self.limit, smoothing.spread)
        return _Needs(Waves(load, self.probability, smoothing, accept), fall, left, slope)

    def _over(
        self,
        quadrature: Floats,
        before: Floats,
        after: Floats,
        cut: Floats,
        smoothing: BandSmoothing,
    ) -> _Needs:
        """Needs averaged over hats; a client's own limit is its cut, and needs no smoothing."""
        hat = average_over_hats(quadrature, before, after, self.start, cut)
        load, fall = band_share(self.bits, hat.left, self.link, self.band)
        return _Needs(Waves(load, self.probability, smoothing, hat.open), fall, hat.left, hat=hat)

    def _cuts(self, quadrature: Floats, spread: float) -> tuple[Floats, Floats]:
        """Seconds after its start before which a client counts as absent, and d/d bits, (N,).

        Where the nodes resolve its rise, the waves rise smoothly about the solo time, and the cut
        is before, where the client needs more bands than the smoothing gives. Where they do not,
        and where a limit of its own forbids more band than it has when alone, it steps at its
        solo time.
        """
        early = self._early(1 + 5 * spread)
        rise = np.maximum(self.solo - early, 1e-9 * self.solo)
        rise[self.limit < 1] = 1e-9 * self.solo[self.limit < 1]
        interval = np.searchsorted(quadrature, self.start + self.solo).clip(1, len(quadrature) - 1)
        wide = (0.35 * np.diff(quadrature)[interval - 1] / rise) ** 2
        resolved = 2 / (2 + wide)
        slope = self.solo - rise * (resolved + wide * resolved**2)
        return self.solo - rise * resolved, slope / self.bits


def _summed(weight: Floats, values: Floats) -> Floats:
    """Sum over the times, without BLAS; see `load_law`."""
    return np.asarray(np.einsum("m,mn->n", weight, values))


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
