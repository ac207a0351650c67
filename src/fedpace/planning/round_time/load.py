r"""How likely a random set of participants fits the band: the law of a sum of independent loads.

Client n joins with probability q_n and then loads the band by x_n, its share of W. We want
P(sum_n I_n x_n <= 1) for any N, any q and any spread of x: a few large loads, many small ones, or
both. With the band's smoothing xi (`band_smoothing`) in the place of 1 it is

.. math:: P\Big(\sum_n I_n x_n \le \xi\Big)
          = \Re \sum_j b_j \prod_n \big(1 - q_n + q_n e^{-z_j x_n}\big),

in O(N J), exactly, with derivatives as cheap as the value. Sums over clients are `einsum`, not `@`:
blocks are small, and a threaded BLAS spends more on waking its threads than on the sum.
"""

from functools import lru_cache

import numpy as np

from fedpace.core.profile import Floats
from fedpace.planning.round_time.band_smoothing import BandSmoothing, Complexes

__all__ = ["Waves"]

_DEAD_EXPONENT = 37.0
"""A wave damped by e^-37 is gone in double precision."""
_LIGHT_EXPONENT = 0.5
"""|z_J x| up to which six cumulants stand for the whole: the error is below 1e-6 q."""
_LEAST_ABSENCE = 1e-15
"""Floor of 1 - q, so that the product without one factor is a quotient also at q = 1."""
_ORDER = np.arange(1, 7)
"""Orders of the cumulants."""


class Waves:
    r"""The factors 1 - q_n + q_n c_n e^{-z_j x_n} of some clients, at M points.

    A pair of point and client falls in one of three classes. Blocked, where x is so large that the
    wave has died: the factor is 1 - q. Light, where |z_J x| is small: the logarithm is a series in
    z x with the Bernoulli cumulants, so one sum serves all j. The rest is computed wave by wave.

    Args:
        load: x, shape (M, N): share of the band that client n needs at a point.
        probability: q, shape (N,), of joining, independently; above 0.
        smoothing: the law of xi.
        accept: c, shape (M, N), in [0, 1]: chance that n, if it joins, can use its load at all;
            None where it always can.
    """

    def __init__(
        self,
        load: Floats,
        probability: Floats,
        smoothing: BandSmoothing,
        accept: Floats | None = None,
    ) -> None:
        z = self._z = smoothing.exponents
        self._probability, self._absent = probability, np.maximum(1 - probability, _LEAST_ABSENCE)
        self._blocked = load * z[0].real > _DEAD_EXPONENT
        light = load * abs(z[-1]) < _LIGHT_EXPONENT
        if accept is not None:
            light &= accept > 1 - 1e-12
        self._light = np.where(light, load, 0.0)
        self._pairs = np.nonzero(~(light | self._blocked))
        client = self._pairs[1]
        q, x = probability[client], load[self._pairs]
        present = np.empty((len(z), len(x)), dtype=np.complex128)
        present[0] = q * np.exp(-z[0].real * x)
        if accept is not None:
            present[0] *= accept[self._pairs]
        # z_j is an arithmetic sequence, so the waves are powers of one.
        turn = np.exp((z[0] - z[1]) * x)
        for j in range(1, len(z)):
            np.multiply(present[j - 1], turn, out=present[j])
        self._present, self._factors = present, present + self._absent[client]
        self._series = _series(smoothing)

    def products(self) -> Complexes:
        """Return the product over the clients, shape (J + 1, M)."""
        moments, power = [], self._light
        for cumulant in _cumulants(self._probability):
            moments.append(np.einsum("mn,n->m", power, cumulant))
            power = power * self._light
        blocked = np.where(self._blocked, np.log(self._absent), 0.0).sum(axis=1)
        result = np.exp(self._series @ np.array(moments) + blocked)
        point = self._pairs[0]
        if len(point):
            first = np.append(0, np.flatnonzero(point[1:] != point[:-1]) + 1)
            result[:, point[first]] *= np.multiply.reduceat(self._factors, first, axis=1)
        return np.asarray(result)

    def gradient(self, products: Complexes) -> tuple[Floats, Floats, Floats]:
        """Return the derivatives of sum_j Re(products) in q, x and ln c, each of shape (M, N).

        That in ln c is left out, as 0, where c is 1 and x is small.

        Args:
            products: b_j times the product over all clients, these and others, shape (J + 1, M).
        """
        d_probability, d_load = self._light_gradient(products)
        value = products.sum(axis=0).real
        d_probability -= self._blocked * (value[:, None] / self._absent)
        point, client = self._pairs
        others = np.repeat(products, np.bincount(point, minlength=products.shape[1]), axis=1)
        others /= self._factors
        absent = others.real.sum(axis=0)
        others *= self._present
        joint = others.real.sum(axis=0)
        # -Re sum_j z_j others_j; all z_j have the same real part.
        slope = np.einsum("j,jp->p", self._z.imag, others.imag) - self._z[0].real * joint
        d_probability[self._pairs] = joint / self._probability[client] - absent
        d_load[self._pairs] = slope
        d_log_accept = np.zeros_like(d_load)
        d_log_accept[self._pairs] = joint
        return d_probability, d_load, d_log_accept

    def _light_gradient(self, products: Complexes) -> tuple[Floats, Floats]:
        """With C_m = Re sum_j products_j (-z_j)^m / m!: sums of C_m kappa_m' x^m and its like."""
        x = self._light
        factors = (self._series.T @ products).real[:, :, None]
        cumulants, slopes = _cumulants(self._probability), _cumulant_slopes(self._probability)
        d_probability, d_load = np.zeros_like(x), np.zeros_like(x)
        for m, factor, cumulant, slope in zip(
            _ORDER[::-1], factors[::-1], cumulants[::-1], slopes[::-1], strict=True
        ):
            d_probability += factor * slope
            d_probability *= x
            d_load *= x
            d_load += (m * factor) * cumulant
        return d_probability, np.where(x > 0, d_load, 0.0)


@lru_cache(maxsize=16)
def _series(smoothing: BandSmoothing) -> Complexes:
    """(-z_j)^m / m!, shape (J + 1, 6)."""
    return np.asarray((-smoothing.exponents[:, None]) ** _ORDER / np.cumprod(_ORDER))


def _cumulants(q: Floats) -> Floats:
    """Cumulants 1 to 6 of a Bernoulli variable, shape (6, N)."""
    v, skew = q * (1 - q), 1 - 2 * q
    return np.array(
        [q, v, v * skew, v * (1 - 6 * v), v * skew * (1 - 12 * v), v * (1 - v * (30 - 120 * v))]
    )


def _cumulant_slopes(q: Floats) -> Floats:
    """Derivatives of `_cumulants` in q: kappa_m', shape (6, N)."""
    v, skew = q * (1 - q), 1 - 2 * q
    return np.array(
        [
            np.ones_like(q),
            skew,
            1 - 6 * v,
            skew * (1 - 12 * v),
            1 - v * (30 - 120 * v),
            skew * (1 - v * (60 - 360 * v)),
        ]
    )
