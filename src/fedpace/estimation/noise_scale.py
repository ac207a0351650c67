r"""The constants of the rounds-needed model, measured: the federation's noise scale.

The rounds needed grow as :math:`\beta/\alpha + V(q,k)` with
:math:`V = \sum_n a_n^2 \kappa_n \Gamma_n / q_n`. A planner has to know the ratio of V at full
participation and full rank to :math:`\beta/\alpha`, and the shape of :math:`\Gamma`. Both are
estimated here from the updates that arrive anyway, in every round and at no cost: `observe` takes
a round into account, `noise_scale` says what is known. estimation/pilots.py has the classical
estimator from pilot runs. docs/noise-scale.md has the derivations, what is unbiased and what is
not, and the measured accuracy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from fedpace.core.errors import InputError
from fedpace.core.profile import Floats
from fedpace.core.record import RoundRecord
from fedpace.estimation.client_means import (
    ClientMeans,
    fold,
    no_observations,
    shrunk,
    with_unseen,
)

__all__ = [
    "CONFIDENCE",
    "SUFFICIENT",
    "NoiseScale",
    "NoiseState",
    "Part",
    "estimate_noise_scale",
    "fieller_interval",
    "grown_noise_state",
    "initial_noise_state",
    "noise_record",
    "noise_scale",
    "observe",
]

Part = Literal["lora", "head", "all"]

SUFFICIENT = "sufficient"
MIN_ROUNDS = 10
"""Fewer rounds than this are called too few: below it the interval itself is not to be trusted."""
MAX_DOUBT = 0.5
"""Widest interval, out of 1, of the share of rounds that noise costs, at the worst plan; it allows
a ratio known to a factor of 3 either way. docs/noise-scale.md has what a plan loses by that."""
CONFIDENCE = 0.95

# Rows of the moments that are kept: per part the cross products C, the second moment V_full, the
# second moment V of the plan that ran; and two control quantities whose means are known.
_ROWS = {"lora": (0, 1, 2), "head": (3, 4, 5)}
_SUM, _PAIRS, _COUNT = 6, 7, 8
_LEAST = 1e-9  # squared norms are told apart down to this share of their mean


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
            "rounds_observed": float(self.rounds_observed),
        }


@dataclass(frozen=True, slots=True, eq=False)
class NoiseState:
    """All that the estimator remembers of the rounds so far; the next round's input."""

    forget: float
    """Factor in (0, 1] by which an observation counts less than the next one."""
    rounds: int
    skipped: int
    """Rounds left out because a norm in them was not finite (the run diverged)."""
    weight: float
    """Sum over the rounds of forget^age."""
    squared_weight: float
    first: Floats
    """Forgotten sums of the per-round values of `observe`, shape (8,): cross product, V_full and V
    of the LoRA part, the same of the head, sum of w_n, sum over pairs of w_n w_m."""
    second: Floats
    """Forgotten sums of their products, shape (8, 8)."""
    relative: tuple[ClientMeans, ClientMeans]
    """The clients' squared norms relative to each other's: LoRA part, head."""

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON types; `from_json` gives it back bit for bit."""
        scalars = ("forget", "rounds", "skipped", "weight", "squared_weight")
        return {name: getattr(self, name) for name in scalars} | {
            "first": self.first.tolist(),
            "second": self.second.tolist(),
            "relative": [means.to_json() for means in self.relative],
        }

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "NoiseState":
        """Rebuild a state from what `to_json` returned."""
        lora, head = (ClientMeans.from_json(entry) for entry in table["relative"])
        arrays = {n: np.asarray(table[n], dtype=np.float64) for n in ("first", "second")}
        return cls(**{**table, **arrays, "relative": (lora, head)})


def initial_noise_state(num_clients: int, forget: float = 0.95) -> NoiseState:
    """Return the state before the first round.

    Args:
        num_clients: N.
        forget: factor in (0, 1] a round by which old rounds count less, because the noise scale
            grows as training goes on; 0.95 remembers about 40 rounds, 1 all of them.

    Raises:
        InputError: `forget` is out of range.
    """
    if not 0 < forget <= 1:
        raise InputError(f"forget is {forget!r}; it must be above 0 and at most 1")
    return NoiseState(
        forget=forget, rounds=0, skipped=0, weight=0.0, squared_weight=0.0,
        first=np.zeros(_COUNT), second=np.zeros((_COUNT, _COUNT)),
        relative=(no_observations(num_clients), no_observations(num_clients)),
    )  # fmt: skip


def grown_noise_state(state: NoiseState, data_weight: Floats) -> NoiseState:
    r"""Return what is known once new clients stand behind those of `state`.

    Every V is a sum of :math:`a_n^2 \Gamma_n` times what the plan makes of it, so what was seen of
    the smaller population is carried over by the ratio of :math:`\sum_n a_n^2 \Gamma_n` after and
    before; a newcomer's Gamma is the population's until it was seen. The cross product stands over
    its control quantity, the weights of pairs, and needs no change.

    Args:
        state: of the first clients.
        data_weight: a_n of all, shape (N,); those of the first, rescaled to sum to 1, are taken for
            what they were.
    """
    count = len(state.relative[0].mean)
    relative = tuple(with_unseen(means, len(data_weight)) for means in state.relative)
    known = data_weight[:count] / data_weight[:count].sum()
    factor = np.ones(_COUNT)
    for means, part in zip(relative, _ROWS, strict=True):
        shape = shrunk(means, state.forget)
        factor[list(_ROWS[part][1:])] = (data_weight**2 @ shape) / (known**2 @ shape[:count])
    return replace(
        state,
        first=state.first * factor,
        second=state.second * np.outer(factor, factor),
        relative=(relative[0], relative[1]),
    )


def observe(
    state: NoiseState, record: RoundRecord, data_weight: Floats, lora_rank: int
) -> NoiseState:
    r"""Take one round into account. An empty round is an observation like any other.

    With w_n the aggregation weights of the round (E[w_n] = a_n, independent over clients, and the
    updates independent given the adapter), these are unbiased, whatever the plan:

    - :math:`\|\sum_n w_n\Delta_n\|^2 - \sum_n w_n^2\|\Delta_n\|^2` for
      :math:`\sum_{n \ne m} a_n a_m \langle m_n, m_m\rangle`,
    - :math:`\sum_n a_n w_n \|\Delta_n\|^2 / \kappa_n` for :math:`V_{full}`
      (of the LoRA part to first order in the learning rate; the head has no kappa),
    - :math:`\sum_n w_n^2 \|\Delta_n\|^2` for V of the plan that ran.

    Args:
        state: what was known before.
        record: of the round, as `run_round` made it.
        data_weight: a_n, shape (N,), sums to 1.
        lora_rank: r.

    Returns:
        What is known after. The arguments are not changed. Cost: O(participants), and one copy
        of the per-client arrays.

    Source: derived in docs/noise-scale.md.
    """
    people = record.participants
    client = np.array([p.client for p in people], dtype=np.int64)
    weight = np.array([p.weight for p in people], dtype=np.float64)
    kappa = lora_rank / np.array([p.sketch_rank for p in people], dtype=np.float64)
    share = data_weight[client]
    values = np.zeros(_COUNT)
    values[_SUM], values[_PAIRS] = weight.sum(), weight.sum() ** 2 - (weight**2).sum()
    full_rank = np.zeros((2, len(people)))
    for row, part in enumerate(_ROWS):
        squared = np.array([getattr(p, f"{part}_squared_norm") for p in people], dtype=np.float64)
        full_rank[row] = squared / kappa if part == "lora" else squared
        spent = float((weight**2 * squared).sum())
        cross = getattr(record, f"{part}_squared_norm") - spent
        values[list(_ROWS[part])] = cross, (share * weight * full_rank[row]).sum(), spent
    if not np.all(np.isfinite(values)):
        return replace(state, skipped=state.skipped + 1)
    f = state.forget
    return replace(
        state,
        rounds=state.rounds + 1,
        weight=f * state.weight + 1.0,
        squared_weight=f * f * state.squared_weight + 1.0,
        first=f * state.first + values,
        second=f * state.second + np.outer(values, values),
        relative=(
            _compared(state.relative[0], client, full_rank[0], f),
            _compared(state.relative[1], client, full_rank[1], f),
        ),
    )


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
    parts = tuple(_ROWS) if part == "all" else (part,)
    diagonal = float((data_weight**2).sum())
    cross, v_full, spent = (sum(state.first[_ROWS[p][i]] for p in parts) for i in range(3))
    gamma = np.zeros(len(data_weight))
    for p in parts:
        shape = shrunk(state.relative[list(_ROWS).index(p)], state.forget)
        gamma += state.first[_ROWS[p][1]] * shape / (data_weight**2 @ shape)
    if v_full <= 0 or state.first[_PAIRS] <= 0:
        return NoiseScale(
            part=part, v_full=np.nan, cross_product=np.nan, squared_update_norm=np.nan,
            ratio=np.nan, ratio_interval=(0.0, np.inf),
            noise_fraction=np.nan,
            update_second_moment=gamma if v_full > 0 else np.ones(len(data_weight)),
            rounds_observed=state.rounds, verdict=_verdict(state, (-np.inf, np.inf)),
        )  # fmt: skip
    # Sums are divided by those of the control quantities, whose means are 1 and 1 - sum a^2:
    # most of the noise of who happened to join cancels.
    squared_norm = float(cross / state.first[_PAIRS])
    cross_product, v_mean = squared_norm * (1 - diagonal), float(v_full / state.first[_SUM])
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


def _compared(
    means: ClientMeans, client: NDArray[np.int64], squared_norm: Floats, forget: float
) -> ClientMeans:
    """Add a round's squared norms.

    All norms drift together as training goes on, so a round is first brought to the scale on which
    its participants have, on (geometric) average, the norms that are known of them.
    """
    moved = squared_norm > 0
    if not np.any(moved):
        return means
    known = np.where(means.observations[client] > 0, means.mean[client], 1.0)
    drift = np.exp(np.mean(np.log(squared_norm[moved] / known[moved])))
    return fold(means, client, np.maximum(squared_norm / drift, _LEAST), forget)


def _signal_interval(
    state: NoiseState, parts: Sequence[str], signal: float, pairs_mean: float
) -> tuple[float, float]:
    """Fieller's interval of cross_product / v_full from the scatter of the rounds."""
    effective = state.weight**2 / state.squared_weight
    if effective < 2:
        return -np.inf, np.inf
    cross, v_full = np.zeros(_COUNT), np.zeros(_COUNT)
    for part in parts:
        cross[_ROWS[part][0]] = v_full[_ROWS[part][1]] = 1.0
    mean, products = state.first / state.weight, state.second / state.weight
    # What a round's scatter does to the two quotients, to first order.
    norm, moment = cross @ mean / mean[_PAIRS], v_full @ mean / mean[_SUM]
    cross[_PAIRS] -= norm
    v_full[_SUM] -= moment
    rows = np.stack([cross * pairs_mean / mean[_PAIRS], v_full / mean[_SUM]])
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
    elif state.first[_PAIRS] <= 0:
        reasons.append("no round had two participants")
    elif doubt > MAX_DOUBT:
        reasons.append(
            f"after {state.rounds} rounds the noise ratio is only known to be within "
            f"{_inverse(high):.2g} and {_inverse(low):.2g}"
        )
    if reasons and state.skipped:
        reasons.append(f"{state.skipped} rounds with norms that are not finite were left out")
    return "; ".join(reasons) or SUFFICIENT
