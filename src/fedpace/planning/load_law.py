r"""How likely a random set of participants fits the band: the law of a sum of independent loads.

Client n joins with probability q_n and then loads the band by x_n, its share of W. We want
P(sum_n I_n x_n <= 1) for any N, any q and any spread of x: a few large loads, many small ones, or
both. No normal law holds for all of these. So the band is given a small flutter instead: a random
factor xi > 0 with E[1/xi] = 1, whose tail P(xi >= x) is a sum of J + 1 damped waves,

.. math:: P(\xi \ge x) = \Re \sum_{j=0}^{J} b_j e^{-z_j x}, \qquad z_j = \mu (1 - i \omega j).

Then, with no further approximation and in O(N J),

.. math:: P\Big(\sum_n I_n x_n \le \xi\Big)
          = \Re \sum_j b_j \prod_n \big(1 - q_n + q_n e^{-z_j x_n}\big),

which is a probability, monotone in every x_n and q_n, and smooth in both. The spread of 1/xi is
about 0.75 / J. Among all such factors `band_flutter` finds the one of least spread: its density is
e^{-x} |p(e^{i omega x})|^2 with p a polynomial, and the best p is an eigenvector. The family is
that of concentrated matrix-exponential distributions (Horvath, Horvath, Almousa and Telek 2020,
Performance Evaluation 137), with 1/xi in the place of xi. Derived in docs/round-time.md.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from fedpace.core.profile import Floats

__all__ = ["BandFlutter", "LoadGradient", "band_flutter", "fit_gradient", "fit_probability"]

_Complex = NDArray[np.complex128]
_LARGEST_LOAD = 60.0
"""Loads beyond it are cut: a client that needs 60 bands cannot join, and e^(-z x) is 0 to it."""
_LEAST_ABSENCE = 1e-15
"""Floor of 1 - q, so that the product without one factor is a quotient also at q = 1."""


@dataclass(frozen=True, slots=True, eq=False)
class BandFlutter:
    """A random factor xi of the bandwidth, E[1/xi] = 1."""

    exponents: _Complex
    """z_j, shape (J + 1,)."""
    weights: _Complex
    """b_j, shape (J + 1,)."""
    spread: float
    """Standard deviation of 1/xi."""

    def tail(self, x: Floats) -> Floats:
        """P(xi >= x), any shape."""
        waves = self.weights * np.exp(-np.multiply.outer(x, self.exponents))
        return np.asarray(waves.sum(axis=-1).real)


@lru_cache(maxsize=16)
def band_flutter(terms: int) -> BandFlutter:
    r"""Return the flutter of least spread with J = `terms` waves.

    With X = mu xi of density e^{-x} |p(e^{i w x})|^2, minimise E[(c/X - 1)^2] over polynomials p
    of degree J with p(1) = 0 (which makes E[1/X^2] finite) and over c. For given c the minimiser
    is the lowest eigenvector of a J x J pencil, for given p it is c = E[1/X] / E[1/X^2].

    Args:
        terms: J >= 2.

    Example:
        >>> round(band_flutter(12).spread, 3), round(float(band_flutter(12).tail(np.array(0.7))), 3)
        (0.064, 1.0)
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
    return BandFlutter(exponents, weights, spread)


def _mean(p: _Complex, form: _Complex) -> float:
    return float(np.vdot(p, form @ p).real)


@dataclass(frozen=True, slots=True, eq=False)
class LoadGradient:
    """P(sum_n I_n x_n <= xi) at M points, and its derivatives, each of shape (N, M)."""

    value: Floats
    """Shape (M,)."""
    d_probability: Floats
    """In q_n."""
    d_load: Floats
    """In x_n."""
    d_log_accept: Floats
    """In ln c_n."""


def fit_probability(
    load: Floats, probability: Floats, flutter: BandFlutter, accept: Floats | None = None
) -> Floats:
    r"""P(sum_n I_n x_n <= xi), times the chance that each participant accepts its own load.

    Args:
        load: x, shape (N, M): share of the band that client n needs, at M points; may be infinite.
        probability: q, shape (N,), of joining, independently.
        flutter: the law of xi.
        accept: c, shape (N, M), in [0, 1]: chance that n, if it joins, can use its load at all;
            None where it always can.

    Returns:
        Shape (M,): Re sum_j b_j prod_n (1 - q_n + q_n c_n exp(-z_j x_n)).
    """
    _, factors = _factors(load, probability, flutter, accept)
    return np.asarray((flutter.weights @ factors.prod(axis=1)).real)


def fit_gradient(
    load: Floats, probability: Floats, flutter: BandFlutter, accept: Floats | None = None
) -> LoadGradient:
    """`fit_probability` with its exact derivatives; the arguments are the same."""
    present, factors = _factors(load, probability, flutter, accept)
    products = flutter.weights[:, None] * factors.prod(axis=1)
    others = np.reciprocal(factors, out=factors)
    others *= products[:, None, :]
    shape = load.shape
    absent = others.real.sum(axis=0)
    others *= present
    joint = others.real.sum(axis=0)
    slope = (flutter.exponents @ others.reshape(len(products), -1)).real.reshape(shape)
    return LoadGradient(
        value=products.real.sum(axis=0),
        d_probability=joint / probability[:, None] - absent,
        d_load=-slope,
        d_log_accept=joint,
    )


def _factors(
    load: Floats, probability: Floats, flutter: BandFlutter, accept: Floats | None
) -> tuple[_Complex, _Complex]:
    """Return q c e^(-z_j x) and 1 - q + q c e^(-z_j x), each of shape (J + 1, N, M)."""
    x = np.minimum(load, _LARGEST_LOAD)
    z = flutter.exponents
    present = np.empty((len(z), *x.shape), dtype=np.complex128)
    present[0] = probability[:, None] * np.exp(-z[0].real * x)
    if accept is not None:
        present[0] *= accept
    # z_j is an arithmetic sequence, so the waves are powers of one.
    turn = np.exp((z[0] - z[1]) * x)
    for j in range(1, len(z)):
        np.multiply(present[j - 1], turn, out=present[j])
    return present, present + np.maximum(1 - probability, _LEAST_ABSENCE)[:, None]
