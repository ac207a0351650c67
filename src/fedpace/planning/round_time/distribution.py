r"""How long a round takes, as a distribution: mean, quantiles, and their gradients.

Clients join a round independently, client n with probability q_n. With tau_n its start and w_n(s)
the bandwidth that lets it finish by s, the round has ended by s exactly if the participants' needs
fit the band W (all finish together), so

.. math:: P(T \le s) = P\Big(\sum_n I_n w_n(s) \le W\Big), \qquad
          E[T] = \int_0^\infty \big(1 - P(T \le s)\big)\, ds.

One law serves all: the band and the clients' own limits are smoothed by a few percent
(`band_smoothing`), and nothing else is approximated. Derived and measured in docs/round-time.md.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from fedpace.core.arguments import takes
from fedpace.core.errors import InputError
from fedpace.core.plan import Decision, Plan
from fedpace.core.profile import Clients, Floats, System
from fedpace.planning.round_time.band_smoothing import band_smoothing
from fedpace.planning.round_time.estimates import mean_field_seconds, upper_bound_seconds
from fedpace.planning.round_time.law import RoundLaw
from fedpace.planning.round_time.never_idle import NeverIdle
from fedpace.planning.round_time.quadrature import reaches
from fedpace.planning.round_time.simulation import enumerate_round_seconds, simulate_round_seconds

__all__ = [
    "RoundTime",
    "choose_quadrature",
    "enumerate_round_seconds",
    "mean_and_gradient",
    "mean_field_seconds",
    "quantile_and_gradient",
    "round_time",
    "simulate_round_seconds",
    "upper_bound_seconds",
]

_EXACT_CLIENTS = 12
"""Up to so many clients `round_time` lists all sets of participants."""
_LAW_TERMS = 40
"""Waves of `round_time`, which is asked once: a spread of 1.7 %."""
_LAW_FINENESS = 3.0
"""Fineness of its nodes."""
_MEAN_TERMS = 8
"""Waves of the smoothing for a mean, which feels its spread, 10 %, only at second order."""
_QUANTILE_TERMS = 32
"""A quantile feels the spread, 2 %, at first order."""


@dataclass(frozen=True, slots=True, eq=False)
class RoundTime:
    """Distribution of the duration of a round: a polyline with jumps."""

    mean: float
    """E[T], s."""
    seconds: Floats
    """Times in ascending order, shape (M,), s; equal neighbours are a jump."""
    probability: Floats
    """P(T <= s) at those times, shape (M,); straight lines between."""

    def cdf(self, seconds: ArrayLike) -> Floats:
        """P(T <= s), of the shape of `seconds`."""
        s = np.asarray(seconds, dtype=np.float64)
        after = np.searchsorted(self.seconds, s, side="right")
        i = np.clip(after, 1, len(self.seconds) - 1)
        low, high = self.seconds[i - 1], self.seconds[i]
        part = np.clip((s - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
        line = self.probability[i - 1] + part * (self.probability[i] - self.probability[i - 1])
        inside = np.where(after == 0, 0.0, line)
        return np.where(after == len(self.seconds), self.probability[-1], inside)

    def quantile(self, probability: float) -> float:
        """Least s with P(T <= s) >= p, for p in (0, 1)."""
        _check_level(probability)
        i = int(np.searchsorted(self.probability, probability, side="left"))
        if i == 0 or i == len(self.probability):
            return float(self.seconds[min(i, len(self.seconds) - 1)])
        around = slice(i - 1, i + 1)
        return float(np.interp(probability, self.probability[around], self.seconds[around]))


@takes(plan=(Plan, Decision), clients=Clients, system=System)
def round_time(plan: Plan | Decision, clients: Clients, system: System) -> RoundTime:
    """Predict how long a round takes, as a distribution.

    Up to 12 clients by listing all sets of participants, exactly. Beyond, by the law of a band
    with a smoothing of 1.7 %: the mean is right to a few parts in a thousand, a quantile to at most
    3 % (where every round takes equally long). If every client takes part for certain, the one
    round time there is, exactly. A plan of K draws with replacement is treated as independent
    participation with `plan.participation_probability()`. Where links fade (`system.fading`), give
    clients with their mean (`channel.mean_faded`); the law of a band that never idles then has
    demands that vary about it, the others have the mean alone.

    Args:
        plan: sampling probabilities and ranks, as a plan or as its decision.
        clients: N clients.
        system: what they share.

    Returns:
        Mean, quantiles and distribution function; an empty round takes the overhead alone.

    Example:
        >>> clients = Clients.from_columns(
        ...     data_weight=[1, 1], step_seconds=[0.2, 0.6], spectral_efficiency=[2.0, 2.0])
        >>> system = System(bandwidth_hz=1e6, lora_rank=8, bits_per_rank=5e5)
        >>> both = Decision(np.array([1.0, 0.5]), np.array([8, 8]))
        >>> law = round_time(both, clients, system)
        >>> round(law.mean, 3), round(law.quantile(0.4), 3), round(law.quantile(0.95), 3)
        (4.0, 3.0, 5.0)
    """
    decision = plan.decision if isinstance(plan, Plan) else plan
    if len(decision) != len(clients):
        raise InputError(
            f"round_time(): the plan is for {len(decision)} clients, clients has {len(clients)}; "
            "give the clients that it was made for"
        )
    joins = decision.participation_probability()
    fades = system.fading and system.allocation == "work-conserving"
    certain = bool(np.all(joins * clients.availability == 1))
    if len(clients) <= _EXACT_CLIENTS and not fades:
        return _steps(*enumerate_round_seconds(decision, clients, system))
    if certain and not fades:
        return _steps(simulate_round_seconds(decision, clients, system, 1, 0), np.ones(1))
    law = RoundLaw.of(joins, decision.sketch_rank, clients, system)
    return round_time_of(law, system.overhead_seconds)


def round_time_of(law: RoundLaw, overhead_seconds: float) -> RoundTime:
    """Return the distribution of a law, its mean more exactly than the polyline gives it."""
    overhead = overhead_seconds
    if law.allocation == "work-conserving":
        busy = NeverIdle.near(law)
        seconds, value = busy.distribution()
        return RoundTime(overhead + busy.mean().value, overhead + seconds, value)
    seconds = law.quadrature(_LAW_FINENESS)
    # The law is monotone; this only removes rounding.
    value = np.maximum.accumulate(law.cdf(seconds, band_smoothing(_LAW_TERMS)))
    mean = float(reaches(seconds) @ (1 - law.mean(seconds, band_smoothing(_MEAN_TERMS)).value))
    return RoundTime(
        overhead + mean,
        np.append(overhead, overhead + seconds),
        np.append(0.0, np.append(value[:-1], 1.0)),
    )


def _steps(seconds: Floats, chance: Floats) -> RoundTime:
    """The distribution of a variable with the given values."""
    order = np.argsort(seconds, kind="stable")
    total = np.cumsum(chance[order])
    total[-1] = 1.0
    polyline = np.repeat(seconds[order], 2), np.stack([np.append(0.0, total[:-1]), total], 1)
    return RoundTime(float(seconds @ chance), polyline[0], polyline[1].ravel())


def mean_and_gradient(
    sampling_probability: ArrayLike,
    sketch_rank: ArrayLike,
    clients: Clients,
    system: System,
    *,
    terms: int = _MEAN_TERMS,
    quadrature: Floats | None = None,
) -> tuple[float, Floats, Floats]:
    r"""Mean duration of a round, with its exact derivatives.

    Computes overhead + the integral of 1 - P(T <= s), as the sum over about 40 nodes of a hat's
    area times the average over the hat (`quadrature`), with P(T <= s) that of a band with a
    smoothing of `terms` waves. The derivatives are those of this number at the nodes it is computed
    with. A small change of the plan keeps the nodes; where it does not, the number steps by about
    1e-4 of itself. Give `quadrature` to keep them through a line search.

    Args:
        sampling_probability: q, shape (N,), in (0, 1]; client n takes part with probability
            q_n availability_n.
        sketch_rank: k, shape (N,), real-valued, above 0.
        clients: N clients.
        system: what they share.
        terms: waves of the smoothing, whose spread is about 0.75 / terms; the cost grows with it.
        quadrature: from `choose_quadrature` at a plan not far away; None: chosen here, at twice the
            cost.

    Returns:
        E[T], s; dE[T]/dq, shape (N,), s; dE[T]/dk, shape (N,), s.

    Raises:
        InputError: a probability outside (0, 1] or a rank not above 0; names the client.

    Example:
        >>> clients = Clients.from_columns(
        ...     data_weight=[1, 1], step_seconds=[0.2, 0.6], spectral_efficiency=[2.0, 2.0])
        >>> system = System(bandwidth_hz=1e6, lora_rank=8, bits_per_rank=5e5)
        >>> mean, d_q, d_k = mean_and_gradient([1.0, 0.5], [8, 8], clients, system)
        >>> round(mean, 2), d_q.round(1).tolist()
        (4.0, [1.5, 2.0])
    """
    law = RoundLaw.of(sampling_probability, sketch_rank, clients, system)
    if law.allocation == "work-conserving":
        window = None if quadrature is None else float(quadrature[0])
        busy = NeverIdle.near(law, window).mean()
        d_k = law.rank_derivative(busy.d_start, busy.d_bits, clients, system)
        return (
            system.overhead_seconds + busy.value, busy.d_probability * clients.availability, d_k,
        )  # fmt: skip
    quadrature = law.quadrature() if quadrature is None else quadrature
    at = law.mean(quadrature, band_smoothing(terms))
    mean = system.overhead_seconds + float(reaches(quadrature) @ (1 - at.value))
    d_k = law.rank_derivative(at.d_start, at.d_bits, clients, system)
    return mean, at.d_probability * clients.availability, d_k


def quantile_and_gradient(
    probability: float,
    sampling_probability: ArrayLike,
    sketch_rank: ArrayLike,
    clients: Clients,
    system: System,
    *,
    terms: int = _QUANTILE_TERMS,
    quadrature: Floats | None = None,
) -> tuple[float, Floats, Floats]:
    """Quantile of the duration of a round, with its exact derivatives.

    Solves P(T <= s) = p, the law as in `mean_and_gradient`, and differentiates the equation:
    ds/dq = -(dP/dq) / (dP/ds). Where p is at most the probability of an empty round, the quantile
    is the overhead and does not move.

    Args:
        probability: p, in (0, 1).
        sampling_probability: as for `mean_and_gradient`; likewise the next three.
        sketch_rank: k, shape (N,).
        clients: N clients.
        system: what they share.
        terms: waves of the smoothing; the quantile of a round of fixed length is off by up to its
            spread times 1.6 at p = 0.95.
        quadrature: from `choose_quadrature`; only a band that never idles keeps something of it.

    Returns:
        The quantile, s; its derivative in q, shape (N,); in k, shape (N,).

    Raises:
        InputError: p, a probability or a rank out of range.
    """
    _check_level(probability)
    law = RoundLaw.of(sampling_probability, sketch_rank, clients, system)
    if law.allocation == "work-conserving":
        window = None if quadrature is None else float(quadrature[0])
        busy = NeverIdle.near(law, window).quantile(probability)
        d_k = law.rank_derivative(busy.d_start, busy.d_bits, clients, system)
        return (
            system.overhead_seconds + busy.value, busy.d_probability * clients.availability, d_k,
        )  # fmt: skip
    smoothing = band_smoothing(terms)
    seconds = law.quadrature()
    value = law.cdf(seconds, smoothing)
    i = int(np.argmax(value >= probability)) if value[-1] >= probability else len(value)
    if i == 0:
        return system.overhead_seconds, np.zeros(len(law)), np.zeros(len(law))
    low, high = seconds[i - 1], seconds[i] if i < len(value) else 2 * seconds[-1]
    while i == len(value) and law.cdf(np.array([high]), smoothing)[0] < probability:
        high *= 2
    root = brentq(
        lambda s: law.cdf(np.array([s]), smoothing)[0] - probability, low, high, xtol=1e-14 * high
    )
    at = law.gradient(float(root), smoothing)
    d_k = law.rank_derivative(at.d_start, at.d_bits, clients, system)
    # Between two steps of the distribution a quantile leaps: its slope there is cut.
    scale = -1 / max(float(at.d_seconds[0]), 1e-9 / float(root))
    quantile = system.overhead_seconds + float(root)
    return quantile, scale * at.d_probability * clients.availability, scale * d_k


def choose_quadrature(
    sampling_probability: ArrayLike,
    sketch_rank: ArrayLike,
    clients: Clients,
    system: System,
    *,
    fineness: float = 1.0,
) -> Floats:
    """Nodes for `mean_and_gradient` at plans near this one.

    Args:
        sampling_probability: as for `mean_and_gradient`; likewise the next three.
        sketch_rank: k, shape (N,).
        clients: N clients.
        system: what they share.
        fineness: the number of nodes is about 40 times this, the error falls as its square.
    """
    law = RoundLaw.of(sampling_probability, sketch_rank, clients, system)
    return quadrature_of(law, fineness)


def quadrature_of(law: RoundLaw, fineness: float = 1.0) -> Floats:
    """Return what `mean_and_gradient` keeps near a plan: times, or the window of `NeverIdle`."""
    if law.allocation == "work-conserving":
        return np.array([NeverIdle.near(law).window])
    return law.quadrature(fineness)


def _check_level(probability: float) -> None:
    if not 0 < probability < 1:
        raise InputError(f"probability of the quantile is {probability!r}; give one in (0, 1)")
