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

Where links fade, a client's demand has a few values (`wireless.fading`), and u and v with it; the
chain takes them as they are.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from fedpace.core.profile import Floats
from fedpace.core.rng import rng_for
from fedpace.planning.round_time.finish import fading_demands, round_seconds
from fedpace.planning.round_time.law import RoundLaw
from fedpace.planning.round_time.lindley import LindleyChain, Slopes
from fedpace.wireless.channel import bandwidth_for_rate, bandwidth_slope, model_of, rate_bps
from fedpace.wireless.fading import demand_values

__all__ = ["NeverIdle", "TimeSlopes"]

_MOST_PARTICIPANTS = 100.0
"""Rounds of more on average are fitted by those of a part of the clients on as much of the band."""
_ROUNDS_BY_PARTICIPANTS = 2e4
"""Rounds drawn for a fit: this over participants to the power 1.5, within the next two."""
_LEAST_ROUNDS = 16
"""Rounds drawn for a fit, at least."""
_MOST_ROUNDS = 400
"""Rounds drawn for a fit, at most."""
_MEAN_VALUES = 5
"""Values of a demand over fading for a mean."""
_LAW_VALUES = 24
"""Values for the distribution and its quantiles."""
_QUANTILE_LEVELS = np.linspace(0.025, 0.975, 20)
"""Quantiles at which the chain is compared with the drawn rounds."""


@dataclass(frozen=True, slots=True, eq=False)
class TimeSlopes:
    """A mean or a quantile of T, s, and its derivatives by client, each of shape (N,)."""

    value: float
    d_probability: Floats
    d_start: Floats
    d_bits: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Demands:
    """A client as the chain sees it, and how that moves with the bits; columns of shape (N, 1)."""

    solo: Floats
    """u, s."""
    load: Floats
    """v, s."""
    before_by_bits: Floats
    """d (u - v) / d bits."""
    load_by_bits: Floats
    times: Floats
    """By what both are multiplied where links fade, shape (N, M)."""
    chance: Floats
    """Probability of each value, shape (M,)."""

    def by_bits(self, at: Slopes) -> TimeSlopes:
        """Replace the derivatives in start and load by those in start and bits."""
        d_bits = at.d_start * self.before_by_bits + at.d_solo * self.load_by_bits
        return TimeSlopes(
            at.value, at.d_probability, at.d_start.sum(axis=1), (d_bits * self.times).sum(axis=1)
        )


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
        demands, chain = self._chain(_MEAN_VALUES)
        return demands.by_bits(chain.mean())

    def quantile(self, probability: float) -> TimeSlopes:
        """Return a quantile of T and its derivatives."""
        demands, chain = self._chain(_LAW_VALUES)
        made = demands.by_bits(chain.quantile(probability))
        if self.stretch is None:
            return made
        by = float(np.interp(probability, _QUANTILE_LEVELS, self.stretch))
        return TimeSlopes(
            by * made.value, by * made.d_probability, by * made.d_start, by * made.d_bits
        )

    def distribution(self) -> tuple[Floats, Floats]:
        """Times and P(T <= s) at them, straight lines between."""
        seconds, value = self._chain(_LAW_VALUES)[1].distribution()
        if self.stretch is not None:
            stretched = seconds * np.interp(value, _QUANTILE_LEVELS, self.stretch)
            seconds = np.maximum.accumulate(stretched)
        return seconds, value

    def _chain(self, values: int) -> tuple[_Demands, LindleyChain]:
        demands = _demands(self.law, self.window, values)
        load = demands.load * demands.times
        start = self.law.start[:, None] + demands.solo * demands.times - load
        return demands, LindleyChain.of(self.law.probability, start, load, demands.chance)


def _demands(law: RoundLaw, window: float, values: int = 1) -> _Demands:
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
    times, chance = np.ones((len(law), 1)), np.ones(1)
    if law.efficiency is not None and values > 1:
        times, chance = demand_values(law.efficiency, values)
    return _Demands(
        law.solo[:, None],
        load[:, None],
        (solo_by_bits - load_by_bits)[:, None],
        load_by_bits[:, None],
        times,
        chance,
    )


def _fitted(law: RoundLaw) -> NeverIdle:
    """Draw rounds, divide their band event by event, and fit the window to their mean."""
    part = _part(law)
    joined = _drawn(part)
    if not joined.any():
        return NeverIdle(law, 0.0)
    times = fading_demands(part, len(joined), 0)
    seconds = round_seconds(part, joined, times)

    def chained(log_window: float) -> Floats:
        demands = _demands(part, float(np.exp(log_window)))
        load = demands.load[:, 0] * times
        return _served_in_turn(part.start + part.solo * times - load, load, joined)

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
    """Lindley's recursion for given participants, each of shape (D, N) -> (D,)."""
    most = int(joined.sum(axis=1).max())
    place = np.argsort(np.where(joined, start, np.inf), axis=1, kind="stable")[:, :most]
    taken, tau, v = (np.take_along_axis(each, place, axis=1) for each in (joined, start, load))
    busy = np.zeros(len(joined))
    for j in range(most):
        busy = np.where(taken[:, j], np.maximum(busy, tau[:, j]) + v[:, j], busy)
    return busy
