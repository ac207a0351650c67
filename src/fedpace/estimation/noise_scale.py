r"""The constants of the rounds-needed model, measured: the federation's noise scale.

The rounds needed grow as :math:`\beta/\alpha + V(q,k)` with
:math:`V = \sum_n a_n^2 \kappa_n \Gamma_n / q_n`. A planner has to know the ratio of V at full
participation and full rank to :math:`\beta/\alpha`, and the shape of :math:`\Gamma`. Both are
estimated from the updates that arrive anyway, in every round and at no cost: `noise_state.observe`
takes a round into account, `noise_scale` says what is known. estimation/pilots.py has the classical
estimator from pilot runs. docs/noise-scale.md has the derivations, what is unbiased and what is
not, and the measured accuracy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from fedpace.core.profile import Floats
from fedpace.core.record import RoundRecord
from fedpace.estimation.client_means import shrunk
from fedpace.estimation.noise_state import (
    COUNT,
    PAIRS,
    ROWS,
    SUM,
    NoiseState,
    initial_noise_state,
    observe,
)

__all__ = [
    "CONFIDENCE",
    "SUFFICIENT",
    "NoiseScale",
    "Part",
    "estimate_noise_scale",
    "fieller_interval",
    "noise_record",
    "noise_scale",
]

Part = Literal["lora", "head", "all"]
"""Which entries of an update are meant."""

SUFFICIENT = "sufficient"
"""Verdict where a plan may rest on the estimate."""
MIN_ROUNDS = 10
"""Fewer rounds than this are called too few: below it the interval itself is not to be trusted."""
MAX_DOUBT = 0.5
"""Widest interval, out of 1, of the share of rounds that noise costs, at the worst plan; it allows
a ratio known to a factor of 3 either way. docs/noise-scale.md has what a plan loses by that."""
CONFIDENCE = 0.95
"""Chance that the interval holds the ratio."""


@dataclass(frozen=True, slots=True, eq=False)
class NoiseScale:
    r"""What the updates seen so far say of the noise; m_n = E[Delta_n], u = sum_n a_n m_n."""

    part: Part
    """Which entries of the update: the A and B part, the task head, or both together."""
    v_full: float
    r"""V at full participation and full rank, :math:`\sum_n a_n^2 \Gamma_n`."""
    cross_product: float
    r"""beta/alpha: :math:`\|u\|^2 - \sum_n a_n^2 \|m_n\|^2`, which is what can be measured
    without bias, and what the mean square of the aggregate is made of: it plus V."""
    squared_update_norm: float
    r""":math:`\|u\|^2`, exact where the clients' mean updates agree; see `squared_norm_bounds`."""
    ratio: float
    """v_full / cross_product, the planner's `noise_ratio`; infinite where the cross product is not
    above 0, nan where nothing is known."""
    ratio_interval: tuple[float, float]
    """Where the ratio is with 95 % confidence (Fieller)."""
    noise_fraction: float
    """Share of noise, V / (cross_product + V), in the mean squared aggregate of the plans run."""
    v_run: float
    """V of the plans run, each as often as its rounds are remembered."""
    update_second_moment: Floats
    """Gamma_n, shape (N,), shrunk to the population mean; sum a_n^2 Gamma_n is `v_full`."""
    rounds_observed: int
    verdict: str
    """"sufficient", or why a plan should not rest on this yet, for people to read."""

    @property
    def sufficient(self) -> bool:
        """Whether a plan may rest on this."""
        return self.verdict == SUFFICIENT

    @property
    def squared_norm_bounds(self) -> tuple[float, float]:
        r"""Between which :math:`\|u\|^2` lies, were v_full and cross_product exact.

        The lower end is Cauchy-Schwarz (all a_n m_n equal), the upper one has no noise within
        clients (every ||m_n||^2 = Gamma_n). What arrives in a round cannot tell them apart.
        """
        count = len(self.update_second_moment)
        low = max(0.0, self.cross_product) * count / max(count - 1, 1)
        return low, self.cross_product + self.v_full

    def to_json(self) -> dict[str, float]:
        """Return the scalars as JSON types, for `RoundRecord.noise_scale`."""
        return {
            "v_full": self.v_full,
            "cross_product": self.cross_product,
            "squared_update_norm": self.squared_update_norm,
            "ratio": self.ratio,
            "ratio_low": self.ratio_interval[0],
            "ratio_high": self.ratio_interval[1],
            "noise_fraction": self.noise_fraction,
            "v_run": self.v_run,
            "rounds_observed": float(self.rounds_observed),
        }


def noise_scale(state: NoiseState, data_weight: Floats, part: Part = "all") -> NoiseScale:
    """Return the estimates of one part of the update, with their confidence interval.

    Args:
        state: what was observed.
        data_weight: a_n, shape (N,), sums to 1.
        part: "lora", "head" or "all" (their sum; what a planner should use unless the server
            treats the two apart).

    Returns:
        The noise scale. Check `sufficient` before a plan rests on it.
    """
    parts = tuple(ROWS) if part == "all" else (part,)
    diagonal = float((data_weight**2).sum())
    cross, v_full, spent = (sum(state.first[ROWS[p][i]] for p in parts) for i in range(3))
    gamma = np.zeros(len(data_weight))
    for p in parts:
        shape = shrunk(state.relative[list(ROWS).index(p)], state.forget)
        gamma += state.first[ROWS[p][1]] * shape / (data_weight**2 @ shape)
    if v_full <= 0 or state.first[PAIRS] <= 0:
        return NoiseScale(
            part=part, v_full=np.nan, cross_product=np.nan, squared_update_norm=np.nan,
            ratio=np.nan, ratio_interval=(0.0, np.inf),
            noise_fraction=np.nan, v_run=np.nan,
            update_second_moment=gamma if v_full > 0 else np.ones(len(data_weight)),
            rounds_observed=state.rounds, verdict=_verdict(state, (-np.inf, np.inf)),
        )  # fmt: skip
    # Sums are divided by those of the control quantities, whose means are 1 and 1 - sum a^2:
    # most of the noise of who happened to join cancels.
    squared_norm = float(cross / state.first[PAIRS])
    cross_product, v_mean = squared_norm * (1 - diagonal), float(v_full / state.first[SUM])
    excess = float(spent / v_full)  # V / V_full of the plans that ran
    signal = cross_product / v_mean
    low, high = _signal_interval(state, parts, signal, 1 - diagonal)
    return NoiseScale(
        part=part,
        v_full=v_mean,
        cross_product=cross_product,
        squared_update_norm=squared_norm,
        ratio=_inverse(signal),
        ratio_interval=(_inverse(high), _inverse(low)),
        noise_fraction=_noise_fraction(signal, excess),
        v_run=v_mean * excess,
        update_second_moment=gamma * v_mean / v_full,
        rounds_observed=state.rounds,
        verdict=_verdict(state, (low, high)),
    )


def estimate_noise_scale(
    records: Sequence[RoundRecord],
    data_weight: ArrayLike,
    lora_rank: int,
    *,
    forget: float = 0.95,
    part: Part = "all",
) -> NoiseScale:
    """Return the noise scale of a run so far: `observe` over all records, then `noise_scale`.

    Args:
        records: of one method, in order.
        data_weight: a_n, shape (N,), any scale.
        lora_rank: r.
        forget: as for `initial_noise_state`.
        part: as for `noise_scale`.

    Returns:
        The noise scale after the last record.
    """
    share = np.asarray(data_weight, dtype=np.float64)
    share = share / share.sum()
    state = initial_noise_state(len(share), forget)
    for record in records:
        state = observe(state, record, share, lora_rank)
    return noise_scale(state, share, part)


def noise_record(state: NoiseState, data_weight: Floats) -> dict[str, float]:
    """Return the estimates of all parts for `RoundRecord.noise_scale`: "all_ratio", "lora_ratio"...

    Args:
        state: what was observed.
        data_weight: a_n, shape (N,), sums to 1.
    """
    parts: tuple[Part, ...] = ("all", "lora", "head")
    tables = {part: noise_scale(state, data_weight, part).to_json() for part in parts}
    return {f"{part}_{name}": value for part in parts for name, value in tables[part].items()}


def fieller_interval(
    top: float, bottom: float, top_spread: float, bottom_spread: float, joint_spread: float = 0.0
) -> tuple[float, float]:
    r"""Confidence interval of a quotient of two noisy means (Fieller 1954).

    All g with :math:`(top - g\, bottom)^2 \le t^2\, var(top - g\, bottom)`.

    Args:
        top: the upper mean.
        bottom: the lower mean.
        top_spread: t^2 times its variance; t is the quantile of Student's law.
        bottom_spread: of the lower mean.
        joint_spread: t^2 times their covariance.

    Returns:
        The ends; infinite where the lower mean cannot be told from 0.
    """
    square = bottom**2 - bottom_spread
    if square <= 0:
        return -np.inf, np.inf
    middle = top * bottom - joint_spread
    width = np.sqrt(max(0.0, middle**2 - square * (top**2 - top_spread)))
    return float((middle - width) / square), float((middle + width) / square)


def _signal_interval(
    state: NoiseState, parts: Sequence[str], signal: float, pairs_mean: float
) -> tuple[float, float]:
    """Fieller's interval of cross_product / v_full from the scatter of the rounds."""
    effective = state.weight**2 / state.squared_weight
    if effective < 2:
        return -np.inf, np.inf
    cross, v_full = np.zeros(COUNT), np.zeros(COUNT)
    for part in parts:
        cross[ROWS[part][0]] = v_full[ROWS[part][1]] = 1.0
    mean, products = state.first / state.weight, state.second / state.weight
    # What a round's scatter does to the two quotients, to first order.
    norm, moment = cross @ mean / mean[PAIRS], v_full @ mean / mean[SUM]
    cross[PAIRS] -= norm
    v_full[SUM] -= moment
    rows = np.stack([cross * pairs_mean / mean[PAIRS], v_full / mean[SUM]])
    covariance = rows @ products @ rows.T / (effective - 1)
    spread = float(stdtrit(effective - 1, (1 + CONFIDENCE) / 2)) ** 2 * covariance
    return fieller_interval(signal * moment, moment, spread[0, 0], spread[1, 1], spread[0, 1])


def _inverse(signal: float) -> float:
    return 1 / signal if signal > 0 else np.inf


def _noise_fraction(signal: float, excess: float) -> float:
    """V / (cross_product + V) at V = excess V_full; 1 where no signal is left."""
    return excess / (signal + excess) if signal > 0 else 1.0


def _verdict(state: NoiseState, signal: tuple[float, float]) -> str:
    low, high = max(0.0, signal[0]), max(0.0, signal[1])
    # Where a plan has V = x V_full, noise costs the share x / (x + signal) of its rounds. The two
    # ends of the interval differ most in it at x = sqrt(low high); no plan has x < 1.
    worst = max(1.0, np.sqrt(low * high)) if np.isfinite(high) else 1.0
    doubt = _noise_fraction(low, worst) - _noise_fraction(high, worst)
    reasons = []
    if state.rounds < MIN_ROUNDS:
        reasons.append(f"only {state.rounds} rounds observed, {MIN_ROUNDS} are the least")
    elif state.first[PAIRS] <= 0:
        reasons.append("no round had two participants")
    elif doubt > MAX_DOUBT:
        reasons.append(
            f"after {state.rounds} rounds the noise ratio is only known to be within "
            f"{_inverse(high):.2g} and {_inverse(low):.2g}"
        )
    if reasons and state.skipped:
        reasons.append(f"{state.skipped} rounds with norms that are not finite were left out")
    return "; ".join(reasons) or SUFFICIENT
