r"""Models of a link: everything that the rest needs to know of one, in one place.

A model is a `Link`, and the description of each client's link is one number, a column of `Clients`
by whose name `LINKS` has the model. Constant spectral efficiency e (bit/s/Hz): the rate is e b.
Shannon with a fixed transmit power: b log2(1 + snr_hz / b), where snr_hz = P g / N0 is the signal
power over the noise density, in Hz; more bandwidth then dilutes the power, and the rate stays below
snr_hz / ln 2. docs/extending.md adds a third one.
"""

from typing import Protocol

import numpy as np

from fedpace.core.profile import Floats
from fedpace.wireless.shannon import solve_shannon

__all__ = ["GAIN_FLOOR", "LINKS", "ConstantEfficiency", "Link", "Shannon"]

GAIN_FLOOR = 0.01
"""Least power gain of a fading block, -20 dB: below it a real scheduler would wait."""

_LN2 = float(np.log(2.0))


class Link(Protocol):
    """A model of links; `value` is the column that describes them, and broadcasts."""

    proportional: bool
    """Whether the rate is in proportion to the bandwidth, so that an upload has one demand in
    hertz-seconds however the band is divided."""

    def rate_bps(self, bandwidth_hz: Floats, value: Floats) -> Floats:
        """Rate at a bandwidth, 0 and infinity included; concave and rising, bit/s."""

    def bandwidth_for_rate(self, rate_bps: Floats, value: Floats) -> Floats:
        """Inverse of `rate_bps`, Hz; infinite where no bandwidth gives the rate."""

    def bandwidth_slope(self, rate_bps: Floats, value: Floats) -> Floats:
        """Derivative of `bandwidth_for_rate` in the rate, Hz per bit/s."""

    def share_slope(self, share: Floats, band_hz: float, value: Floats) -> Floats:
        """Derivative of the rate in the share of a band, bit/s."""

    def widest_hz(self, value: Floats) -> Floats:
        """Bandwidth beyond which nothing is gained in double precision, Hz; may be infinite."""

    def side_by_side(self, value: Floats, count: Floats) -> Floats:
        """The one link of `count` such clients: R(count b) is count times R(b) of each."""

    def divided(self, value: Floats, by: Floats, share_hz: float) -> Floats:
        """The link whose efficiency at a bandwidth is that of this one, divided."""

    def faded(self, value: Floats, gain: Floats) -> Floats:
        """The link at a power gain."""

    def mean_faded(self, value: Floats, share_hz: Floats) -> Floats:
        """The link with the mean demand over fading, 1/E[1/e(g)], at a bandwidth."""


class ConstantEfficiency:
    """The rate e b; a value is e, bit/s/Hz."""

    proportional = True

    def rate_bps(self, bandwidth_hz: Floats, value: Floats) -> Floats:
        """E b."""
        return bandwidth_hz * value

    def bandwidth_for_rate(self, rate_bps: Floats, value: Floats) -> Floats:
        """Rate over e."""
        return rate_bps / value

    def bandwidth_slope(self, rate_bps: Floats, value: Floats) -> Floats:
        """1/e, at any rate."""
        slope = 1.0 / value
        return np.broadcast_to(slope, np.broadcast_shapes(rate_bps.shape, slope.shape)).copy()

    def share_slope(self, share: Floats, band_hz: float, value: Floats) -> Floats:
        """E times the band, at any share."""
        return np.broadcast_to(band_hz * value, np.broadcast_shapes(share.shape, value.shape))

    def widest_hz(self, value: Floats) -> Floats:
        """Infinite: every hertz carries as much."""
        return np.full(np.shape(value), np.inf)

    def side_by_side(self, value: Floats, count: Floats) -> Floats:
        """The same e."""
        return value

    def divided(self, value: Floats, by: Floats, share_hz: float) -> Floats:
        """E divided; the bandwidth does not matter."""
        return value / by

    def faded(self, value: Floats, gain: Floats) -> Floats:
        """log2(1 + (2^e - 1) g): e stands for a signal-to-noise ratio of 2^e - 1."""
        return _faded(value, gain)

    def mean_faded(self, value: Floats, share_hz: Floats) -> Floats:
        """The exact mean; the bandwidth does not matter."""
        return _mean_faded(value)


class Shannon:
    """The rate b log2(1 + snr_hz / b); a value is snr_hz, Hz."""

    proportional = False

    def rate_bps(self, bandwidth_hz: Floats, value: Floats) -> Floats:
        """Its limit at infinite bandwidth is snr_hz / ln 2."""
        bandwidth, snr = np.broadcast_arrays(bandwidth_hz, value)
        inside = (bandwidth > 0) & np.isfinite(bandwidth)
        b = np.where(inside, bandwidth, 1.0)
        ends = np.where(bandwidth > 0, snr / _LN2, 0.0)
        return np.where(inside, b * np.log1p(snr / b) / _LN2, ends)

    def bandwidth_for_rate(self, rate_bps: Floats, value: Floats) -> Floats:
        """Relative error below 1e-13 for rates from 1e-6 to 1 - 1e-9 of the limit."""
        log_snr, _, inside = solve_shannon(rate_bps, value)
        bandwidth = value * (np.exp(-log_snr) / -np.expm1(-log_snr))  # snr / (e^t - 1)
        return np.where(inside, bandwidth, np.where(rate_bps > 0, np.inf, 0.0))

    def bandwidth_slope(self, rate_bps: Floats, value: Floats) -> Floats:
        """1 / (log2(1 + x) - x / ((1 + x) ln 2)), x = snr_hz / b; 0 at rate 0."""
        log_snr, gap, inside = solve_shannon(rate_bps, value)
        x = np.expm1(np.minimum(log_snr, 1.0))
        # Both are ln(1+x) - x/(1+x); each keeps its digits where the other cancels.
        nats = np.where(log_snr < 1, x * (x / (1 + x) - gap), log_snr + np.expm1(-log_snr))
        return np.where(inside, _LN2 / nats, np.where(rate_bps > 0, np.inf, 0.0))

    def share_slope(self, share: Floats, band_hz: float, value: Floats) -> Floats:
        """Falls with the share, as power is diluted."""
        ratio = value / band_hz / share
        return np.asarray((np.log1p(ratio) - ratio / (1 + ratio)) * (band_hz / np.log(2)))

    def widest_hz(self, value: Floats) -> Floats:
        """Bandwidth at which the link is at its limit to 12 digits."""
        return 1e12 * value

    def side_by_side(self, value: Floats, count: Floats) -> Floats:
        """So many times the power."""
        return value * count

    def divided(self, value: Floats, by: Floats, share_hz: float) -> Floats:
        """The snr_hz of the divided efficiency at that bandwidth."""
        return share_hz * np.expm1(np.log1p(value / share_hz) / by)

    def faded(self, value: Floats, gain: Floats) -> Floats:
        """A gain scales the signal."""
        return value * gain

    def mean_faded(self, value: Floats, share_hz: Floats) -> Floats:
        """The snr_hz that has the mean's efficiency at that bandwidth."""
        mean = _mean_faded(np.log1p(value / share_hz) / _LN2)
        return share_hz * np.expm1(mean * _LN2)


LINKS: dict[str, Link] = {"spectral_efficiency": ConstantEfficiency(), "snr_hz": Shannon()}
"""By the column that describes the links."""


def _faded(efficiency: Floats, gain: Floats) -> Floats:
    """log2(1 + (2^e - 1) g), written so that g = 1 changes nothing and large e cannot overflow."""
    return efficiency + np.log1p((1 - gain) * np.expm1(-efficiency * _LN2)) / _LN2


def _mean_faded(efficiency: Floats) -> Floats:
    """1 / E[1/e'(g)] for exponential g floored at GAIN_FLOOR, by Gauss-Legendre in ln g."""
    low, high = np.log(GAIN_FLOOR), np.log(45.0)  # e^-45 is beyond double precision
    nodes, weights = np.polynomial.legendre.leggauss(64)
    gains = np.exp(low + (nodes + 1) / 2 * (high - low))
    mean: Floats = -np.expm1(-GAIN_FLOOR) / _faded(efficiency, np.asarray(GAIN_FLOOR))
    # One node at a time: a million clients need no (N, 64) array.
    for gain, weight in zip(
        gains, weights * (high - low) / 2 * gains * np.exp(-gains), strict=True
    ):
        mean += weight / _faded(efficiency, gain)
    return 1 / mean
