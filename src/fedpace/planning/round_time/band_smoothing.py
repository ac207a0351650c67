r"""A random factor of the bandwidth whose distribution is a short sum of damped waves.

For a load x = L/W of the band, P(L <= W) asks for a step function of x. Steps do not factorise over
clients; exponentials do. So the band is given a small smoothing, a random factor xi > 0 with
E[1/xi] = 1 and

.. math:: P(\xi \ge x) = \Re \sum_{j=0}^{J} b_j e^{-z_j x}, \qquad z_j = \mu (1 - i \omega j).

A load that stays below xi is a genuine random event, so all that is computed with it is a
probability: monotone, within [0, 1], smooth. An upload alone in the band takes u/xi seconds, u on
average. The spread of 1/xi is about 0.75 / J.

Among all such factors `band_smoothing` finds the one of least spread: its density is
e^{-x} |p(e^{i omega x})|^2 with p a polynomial of degree J, and the best p is an eigenvector. The
family is that of concentrated matrix-exponential distributions (Horvath, Horvath, Almousa, Telek:
Numerical inverse Laplace transformation using concentrated matrix exponential distributions,
Performance Evaluation 137, 2020), here with the least variance of 1/xi instead of xi. Derived in
docs/round-time.md.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from fedpace.core.profile import Floats

__all__ = ["BandSmoothing", "Complexes", "band_smoothing"]

Complexes = NDArray[np.complex128]
"""Arrays of waves."""


@dataclass(frozen=True, slots=True, eq=False)
class BandSmoothing:
    """A random factor xi of the bandwidth, E[1/xi] = 1."""

    exponents: Complexes
    """z_j, shape (J + 1,)."""
    weights: Complexes
    """b_j, shape (J + 1,)."""
    spread: float
    """Standard deviation of 1/xi."""

    def tail(self, x: Floats) -> Floats:
        """P(xi >= x), any shape."""
        waves = self.weights * np.exp(-np.multiply.outer(x, self.exponents))
        return np.asarray(waves.sum(axis=-1).real)


@lru_cache(maxsize=16)
def band_smoothing(terms: int) -> BandSmoothing:
    r"""Return the smoothing of least spread with J = `terms` waves.

    With X = mu xi of density e^{-x} |p(e^{i w x})|^2, minimise E[(c/X - 1)^2] over polynomials p
    of degree J with p(1) = 0 (which makes E[1/X^2] finite) and over c. For given c the minimiser
    is the lowest eigenvector of a J x J pencil, for given p it is c = E[1/X] / E[1/X^2].

    Args:
        terms: J >= 2.

    Example:
        >>> made = band_smoothing(12)
        >>> round(made.spread, 3), round(float(made.tail(np.array(0.7))), 3)
        (0.063, 1.0)
    """
    omega = 0.3 + 1.75 / np.sqrt(terms)  # the best period, fitted for J from 2 to 64 (it is flat)
    period, points = 2 * np.pi / omega, 16 * (terms + 4)
    x = (np.arange(points) + 0.5) * period / points
    later = x + period * np.arange(12)[:, None]  # |p|^2 is periodic, so all periods fold into one
    waves = np.exp(1j * omega * np.outer(x, np.arange(terms + 1)))
    basis = waves[:, 1:] - waves[:, :1]  # p(1) = 0
    mass, inverse, square = (
        (basis.conj().T * (np.exp(-later) / later**power).sum(axis=0)) @ basis
        for power in (0, 1, 2)
    )
    center = max(1.4, 1.88 * np.log2(terms) - 1.0)  # near the best, so the right minimum is found
    for _ in range(60):
        pencil = center**2 * square - 2 * center * inverse + mass
        p = eigh(pencil, mass, subset_by_index=[0, 0])[1][:, 0]
        center, before = _mean(p, inverse) / _mean(p, square), center
        if abs(center - before) < 1e-12 * center:
            break
    p = np.concatenate([[-p.sum()], p])
    correlation = np.array([np.vdot(p[: terms + 1 - m], p[m:]) for m in range(terms + 1)])
    density = np.concatenate([correlation[:1], 2 * correlation[1:]])
    z = 1 - 1j * omega * np.arange(terms + 1)
    density /= (density / z).sum().real
    inverse_mean = -(density * np.log(z)).sum().real  # E[1/X], Frullani's integral
    inverse_square = (density * z * np.log(z)).sum().real
    for array in (exponents := z / inverse_mean, weights := density / z):
        array.setflags(write=False)
    spread = float(np.sqrt(inverse_square / inverse_mean**2 - 1))
    return BandSmoothing(exponents, weights, spread)


def _mean(p: Complexes, form: Complexes) -> float:
    return float(np.vdot(p, form @ p).real)
