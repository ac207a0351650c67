r"""The round time under a band that never idles, from what each client needs.

At constant spectral efficiency it is `lindley`'s chain: a client with tau and u = t / W. A client
with a limit of its own sends for u seconds at that limit, at least; it fills the band for v < u of
them. It is taken for one that starts at tau + u - v and then needs the whole band for v: alone that
is its time, and among many its load is what counts.

A link whose rate is not in proportion to its band (Shannon) has no single demand: the narrower the
band, the more it makes of every hertz. So v is taken at the band at which the upload lasts `window`
seconds, b = b_n(d_n / window), or at the widest it can use if that is less; alone it still takes u.
The window is one number for all clients, chosen so that the mean of the chain is that of rounds
which are drawn and divided event by event, both with the same participants.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from fedpace.core.profile import Floats
from fedpace.core.rng import rng_for
from fedpace.planning.round_time.finish import round_seconds
from fedpace.planning.round_time.law import RoundLaw
from fedpace.planning.round_time.lindley import LindleyChain, Slopes
from fedpace.wireless.channel import bandwidth_for_rate, bandwidth_slope, model_of, rate_bps

__all__ = ["NeverIdle", "TimeSlopes"]

_MOST_PARTICIPANTS = 100.0
"""Rounds of more on average are fitted by those of a part of the clients on as much of the band."""
_ROUNDS_BY_PARTICIPANTS = 2e4
"""Rounds drawn for a fit: this over participants to the power 1.5, within the next two."""
_LEAST_ROUNDS = 16
"""Rounds drawn for a fit, at least."""
_MOST_ROUNDS = 400
"""Rounds drawn for a fit, at most."""
_QUANTILE_LEVELS = np.linspace(0.025, 0.975, 20)
"""Quantiles at which the chain is compared with the drawn rounds."""


@dataclass(frozen=True, slots=True, eq=False)
class _Demands:
    """A client as the chain sees it, and how that moves with the bits; arrays of shape (N,)."""

    start: Floats
    """tau + u - v, s."""
    load: Floats
    """v, s."""
    start_by_bits: Floats
    load_by_bits: Floats


@dataclass(frozen=True, slots=True, eq=False)
class TimeSlopes:
    """A mean or a quantile of T, s, and its derivatives by client, each of shape (N,)."""

    value: float
    d_probability: Floats
    d_start: Floats
    d_bits: Floats


@dataclass(frozen=True, slots=True, eq=False)
class NeverIdle:
    """The law of N clients whose rounds share a band that never idles, without the overhead."""

    law: RoundLaw
    window: float
    """Seconds by which the band of Shannon links is chosen; 0 at constant efficiency."""
    stretch: Floats | None = None
    """Quantiles of the drawn rounds over those of the chain at `_QUANTILE_LEVELS`; None: 1."""

    @classmethod
    def near(cls, law: RoundLaw, window: float | None = None) -> "NeverIdle":
        """Fit the window to this plan; give the one of a plan nearby to keep it."""
        if window is not None or model_of(law.link).proportional:
            return cls(law, window or 0.0)
        return _fitted(law)

    def mean(self) -> TimeSlopes:
        """E[T] and its derivatives."""
        demands, chain = self._chain()
        return self._by_bits(chain.mean(), demands)

    def quantile(self, probability: float) -> TimeSlopes:
        """Return a quantile of T and its derivatives."""
        demands, chain = self._chain()
        made = self._by_bits(chain.quantile(probability), demands)
        if self.stretch is None:
            return made
        by = float(np.interp(probability, _QUANTILE_LEVELS, self.stretch))
        return TimeSlopes(
            by * made.value, by * made.d_probability, by * made.d_start, by * made.d_bits
        )

    def distribution(self) -> tuple[Floats, Floats]:
        """Times and P(T <= s) at them, straight lines between."""
        seconds, value = self._chain()[1].distribution()
        if self.stretch is not None:
            stretched = seconds * np.interp(value, _QUANTILE_LEVELS, self.stretch)
            seconds = np.maximum.accumulate(stretched)
        return seconds, value

    def _chain(self) -> tuple[_Demands, LindleyChain]:
        demands = _demands(self.law, self.window)
        return demands, LindleyChain.of(self.law.probability, demands.start, demands.load)

    def _by_bits(self, at: Slopes, demands: _Demands) -> TimeSlopes:
        """Replace the derivative in the load by that in the bits."""
        d_bits = at.d_start * demands.start_by_bits + at.d_solo * demands.load_by_bits
        return TimeSlopes(at.value, at.d_probability, at.d_start, d_bits)


def _demands(law: RoundLaw, window: float) -> _Demands:
    widest = np.minimum(law.limit, 1.0)
    solo_by_bits = law.solo / law.bits
    share, load_by_bits = widest, solo_by_bits * widest
    if window > 0:
        rate = law.bits / window
        narrow = bandwidth_for_rate(rate, **law.link) / law.band
        narrower = narrow < widest
        share = np.where(narrower, narrow, widest)
        with np.errstate(invalid="ignore"):
            slope = bandwidth_slope(rate, **law.link) / law.band
        load_by_bits = np.where(narrower, slope, load_by_bits)
    load = np.minimum(share * law.bits / rate_bps(share * law.band, **law.link), law.solo)
    return _Demands(law.start + law.solo - load, load, solo_by_bits - load_by_bits, load_by_bits)


def _fitted(law: RoundLaw) -> NeverIdle:
    """Draw rounds, divide their band event by event, and fit the window to their mean."""
    part = _part(law)
    joined = _drawn(part)
    if not joined.any():
        return NeverIdle(law, 0.0)
    seconds = round_seconds(part, joined)

    def chained(log_window: float) -> Floats:
        demands = _demands(part, float(np.exp(log_window)))
        return _served_in_turn(demands.start, demands.load, joined)

    def excess(log_window: float) -> float:
        return float(chained(log_window).mean() - seconds.mean())

    low, high = np.log(part.solo.min()) - 1.0, np.log(part.solo.sum() + np.ptp(part.start))
    log_window = low
    if excess(low) > 0:
        while excess(high) > 0 and high < low + 40:
            high += 1.0
        log_window = brentq(excess, low, high, xtol=1e-3) if excess(high) < 0 else high
    found, levels = chained(log_window), _QUANTILE_LEVELS
    with np.errstate(divide="ignore", invalid="ignore"):
        stretch = np.quantile(seconds, levels) / np.quantile(found, levels)
    stretch = np.where(np.isfinite(stretch) & (stretch > 0), stretch, 1.0)
    return NeverIdle(law, float(np.exp(log_window)), stretch)


def _part(law: RoundLaw) -> RoundLaw:
    """A part of the clients with as much less of the band: as many hertz for each."""
    every = int(np.ceil(law.probability.sum() / _MOST_PARTICIPANTS))
    if every <= 1:
        return law
    part = law.thinned(every)
    alone = rate_bps(np.minimum(part.limit, 1.0) * part.band, **part.link)
    return replace(part, solo=part.bits / alone)


def _drawn(law: RoundLaw) -> NDArray[np.bool_]:
    participants = max(1.0, float(law.probability.sum()))
    rounds = int(np.clip(_ROUNDS_BY_PARTICIPANTS / participants**1.5, _LEAST_ROUNDS, _MOST_ROUNDS))
    return rng_for(0, "simulation").random((rounds, len(law))) < law.probability


def _served_in_turn(start: Floats, load: Floats, joined: NDArray[np.bool_]) -> Floats:
    """Lindley's recursion for given participants, shape (D, N) -> (D,)."""
    order = np.argsort(start, kind="stable")
    here = joined[:, order]
    most = int(here.sum(axis=1).max())
    place = np.argsort(~here, axis=1, kind="stable")[:, :most]
    taken = np.take_along_axis(here, place, axis=1)
    tau, v = start[order][place], load[order][place]
    busy = np.zeros(len(joined))
    for j in range(most):
        busy = np.where(taken[:, j], np.maximum(busy, tau[:, j]) + v[:, j], busy)
    return busy
