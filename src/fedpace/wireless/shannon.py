r"""Shannon's formula solved for the bandwidth, to double precision up to its limit.

With u = rate ln 2 / snr_hz and y = 1 + snr_hz / b the equation rate = b log2(1 + snr_hz / b) reads
ln y = u (y - 1), and its closed form is the Lambert W function, y = -W_{-1}(-u e^{-u}) / u. That
loses its digits near the limit u = 1 and is slow. In t = ln y the same equation is

    ln((e^t - 1) / t) = -ln u,

whose left side is increasing, convex and nearly straight (slope 1/2 at 0, 1 far out), so Newton's
method converges from any start, and from the one used here in four steps.
"""

import numpy as np
from numpy.typing import NDArray

from fedpace.core.profile import Floats

__all__ = ["solve_shannon"]

_LN2 = float(np.log(2.0))
_LN2_HIGH = float(np.float32(_LN2))
_LN2_LOW = (_LN2 - _LN2_HIGH) + 2.3190468138462996e-17  # the last term: ln 2 beyond 53 bits


def solve_shannon(rate: Floats, snr: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Solve rate = b log2(1 + snr / b).

    Args:
        rate: bit/s.
        snr: P g / N0, Hz; broadcast against `rate`.

    Returns:
        t = ln(1 + snr / b); the gap to the limit, 1 - rate ln 2 / snr; and where there is a
        solution, 0 < rate < snr / ln 2. Elsewhere the first two mean nothing.
    """
    rate, snr = np.broadcast_arrays(rate, snr)
    limit = snr / _LN2
    inside = (rate > 0) & (rate < limit)
    r, s = np.where(inside, rate, 1.0), np.where(inside, snr, 2.0)
    # Near the limit the two sides cancel: the product rate * ln2 is kept in two parts, so that
    # the gap is as exact as its inputs.
    high = r.astype(np.float32).astype(np.float64)
    gap = ((s - high * _LN2_HIGH) - (r - high) * _LN2_HIGH - r * _LN2_LOW) / s
    target = np.where(gap < 0.5, -np.log1p(-np.minimum(gap, 0.5)), -np.log(r * (_LN2 / s)))
    t = target + np.log1p(target)
    for _ in range(4):
        value, slope = _log_exprel(t)
        t = t - (value - target) / slope
    return t, gap, inside


def _log_exprel(t: Floats) -> tuple[Floats, Floats]:
    """ln((e^t - 1) / t) and its derivative, for t > 0."""
    h = t * t
    near = t < 0.06
    safe = np.where(near, 1.0, t)
    # Small t: ln(sinh(t/2) / (t/2)) by its series, or the digits of t/2 drown in those of 1.
    even = h / 24 - h * h / 2880 + h * h * h / 181440
    value = np.where(near, t / 2 + even, safe + np.log(-np.expm1(-safe) / safe))
    slope = np.where(near, 0.5 + t / 12 - t * h / 720, -1 / np.expm1(-safe) - 1 / safe)
    return value, slope
