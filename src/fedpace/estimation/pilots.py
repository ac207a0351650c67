"""The classical estimator of the noise ratio: two pilot runs, for comparison.

Luo et al. (INFOCOM 2022, arXiv 2112.11256) run pilots with uniform and with data-weighted sampling
until several loss levels and solve the ratios of their rounds for beta/alpha. Here the same in the
terms of this package's model, for any two samplings. What it costs and how it compares with
estimation/noise_scale.py is in docs/noise-scale.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from fedpace.core.errors import InputError
from fedpace.core.plan import Decision
from fedpace.core.profile import Clients, Floats
from fedpace.estimation.noise_scale import CONFIDENCE, SUFFICIENT, fieller_interval

__all__ = ["PilotEstimate", "estimate_from_pilots", "relative_variance", "rounds_to_levels"]


@dataclass(frozen=True, slots=True, eq=False)
class PilotEstimate:
    """What two pilot runs say of the noise scale, in the planner's terms."""

    ratio: float
    """`noise_ratio`, from the rounds to all levels together; nan where it cannot be told."""
    ratio_interval: tuple[float, float]
    """95 % by the scatter of repeated pilots (Fieller); (0, inf) of a single pair."""
    averaged_ratio: float
    """As in INFOCOM 2022: the inverse of beta/alpha averaged over the levels; for comparison."""
    ratio_by_level: Floats
    """The ratio from each level alone, shape (L,); negative or infinite where noise swamps it."""
    rounds: Floats
    """Mean rounds to each level by either pilot, shape (2, L)."""
    verdict: str

    @property
    def sufficient(self) -> bool:
        """Whether a plan may rest on this."""
        return self.verdict == SUFFICIENT


def relative_variance(decision: Decision, clients: Clients, lora_rank: int) -> float:
    r"""V(q, k) of a decision as a multiple of V at full participation and full rank.

    :math:`V = \sum_n a_n^2 \kappa_n \Gamma_n E[c_n^2]/E[c_n]^2` with c_n how often client n
    counts in a round: 1/(q_n p_n) for independent sampling and availability p_n; for K draws with
    replacement (1 + (1/chance - 1)/K)/p_n.

    Args:
        decision: gives q, k and K.
        clients: give a_n, p_n and Gamma_n.
        lora_rank: r.

    Example:
        >>> from fedpace.core.profile import Clients
        >>> clients = Clients.from_columns(
        ...     data_weight=[3, 1], step_seconds=[1, 1], spectral_efficiency=[1, 1])
        >>> half = Decision(np.array([0.5, 0.5]), np.array([4, 8]))
        >>> relative_variance(half, clients, lora_rank=8)
        3.8
    """
    squared = clients.data_weight**2 * clients.update_second_moment
    chance, draws = decision.sampling_probability, decision.draws
    moment = 1 / chance if draws is None else 1 + (1 / chance - 1) / draws
    kappa = lora_rank / decision.sketch_rank
    return float((squared * kappa * moment / clients.availability).sum() / squared.sum())


def rounds_to_levels(losses: ArrayLike, levels: ArrayLike) -> Floats:
    """Rounds that a loss curve takes to each level: how long it lies above it.

    Of a falling curve that is where it crosses the level, read between the rounds by a straight
    line. Of a noisy one, time above counts rises as well as falls, so the errors cancel where the
    first crossing would always be early.

    Args:
        losses: after 0, 1, 2, ... rounds, shape (R + 1,).
        levels: shape (L,).

    Returns:
        Shape (L,); nan where the curve ends above the level.

    Example:
        >>> rounds_to_levels([4.0, 2.0, 1.0], [3.0, 1.5, 0.5]).tolist()
        [0.5, 1.5, nan]
    """
    curve = np.asarray(losses, dtype=np.float64)
    height = curve[None, :] - np.asarray(levels, dtype=np.float64)[:, None]
    start, end = height[:, :-1], height[:, 1:]
    top, bottom = np.maximum(start, end), np.minimum(start, end)
    above = np.clip(top / np.where(top > bottom, top - bottom, 1.0), 0.0, 1.0)
    above = np.where(bottom > 0, 1.0, above)
    return np.where(height[:, -1] <= 0, above.sum(axis=1), np.nan)


def estimate_from_pilots(
    losses: tuple[Sequence[ArrayLike], Sequence[ArrayLike]],
    variance: tuple[float, float],
    levels: ArrayLike,
) -> PilotEstimate:
    r"""Solve for the noise ratio from the rounds two samplings need to the same loss levels.

    With rounds R proportional to :math:`1 + \nu x`, x = V / V_full, the two pilots' rounds to a
    level stand as :math:`\rho = R_1/R_2 = (1 + \nu x_1)/(1 + \nu x_2)`, hence
    :math:`\nu = (\rho - 1)/(x_1 - \rho x_2)` and beta/alpha = V_full / nu.

    Args:
        losses: of the first and of the second sampling (say uniform and data-weighted), one or
            more curves each; every curve is the loss after 0, 1, 2, ... rounds.
        variance: x_1 and x_2, from `relative_variance`.
        levels: loss levels that every curve passes, shape (L,).

    Returns:
        The estimate.

    Raises:
        InputError: a curve does not reach a level, or the two samplings have the same variance.

    Source: Luo et al., INFOCOM 2022 (arXiv 2112.11256), restated for this model.
    """
    level = np.atleast_1d(np.asarray(levels, dtype=np.float64))
    if np.isclose(variance[0], variance[1], rtol=0.01):
        raise InputError(
            f"the two pilots have the same relative variance, {variance[0]:.4g} and "
            f"{variance[1]:.4g}, so their rounds cannot differ; use other samplings or cohorts"
        )
    order = (0, 1) if variance[0] > variance[1] else (1, 0)
    rounds = [np.stack([rounds_to_levels(c, level) for c in losses[i]]) for i in order]
    for which, table in zip(order, rounds, strict=True):
        if np.any(np.isnan(table)):
            run, place = np.argwhere(np.isnan(table))[0]
            raise InputError(
                f"curve {run} of pilot {which} ends above loss level {level[place]:g}; "
                "run it longer or choose higher levels"
            )
    noisy, calm = (variance[i] for i in order)

    def ratio_of(rho: Floats) -> Floats:
        """Grows with rho from 0 at 1 to infinity at noisy / calm."""
        rho = np.maximum(rho, 0.0)
        inside = rho < noisy / calm
        return np.where(inside, (rho - 1) / np.where(inside, noisy - rho * calm, 1.0), np.inf)

    mean = np.stack([table.mean(axis=0) for table in rounds])
    by_level = ratio_of(mean[0] / mean[1])
    with np.errstate(divide="ignore"):
        averaged = float(1 / np.mean(1 / by_level))
    total = [table.sum(axis=1) for table in rounds]
    pooled = float(ratio_of(np.asarray(total[0].mean() / total[1].mean())))
    low, high = _quotient_interval(total[0], total[1])
    interval = (
        max(0.0, float(ratio_of(np.asarray(low)))),
        max(0.0, float(ratio_of(np.asarray(high)))),
    )
    verdict = SUFFICIENT
    if min(len(t) for t in total) < 2:
        verdict = "one pilot of a kind gives no interval; run each at least twice"
    elif not 0 < pooled < np.inf:
        verdict = "the noise of the pilots swamps their difference; run more of them"
    return PilotEstimate(
        ratio=pooled,
        ratio_interval=interval,
        averaged_ratio=averaged,
        ratio_by_level=by_level,
        rounds=mean if order == (0, 1) else mean[::-1],
        verdict=verdict,
    )


def _quotient_interval(top: Floats, bottom: Floats) -> tuple[float, float]:
    """Fieller's interval of the quotient of two independent means."""
    freedom = len(top) + len(bottom) - 2
    if min(len(top), len(bottom)) < 2:
        return -np.inf, np.inf
    t = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) ** 2
    spread = [t * float(np.var(x, ddof=1)) / len(x) for x in (top, bottom)]
    return fieller_interval(float(top.mean()), float(bottom.mean()), spread[0], spread[1])
