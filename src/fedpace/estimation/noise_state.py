r"""What is remembered of the updates that arrive: the moments that the noise scale is made of.

`observe` takes a round into account, in constant memory but for two numbers a client, and
`estimation.noise_scale` says what is known. docs/noise-scale.md has the derivations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    "COUNT",
    "PAIRS",
    "ROWS",
    "SUM",
    "NoiseState",
    "grown_noise_state",
    "initial_noise_state",
    "observe",
]

ROWS = {"lora": (0, 1, 2), "head": (3, 4, 5)}
"""Rows of the moments that are kept, of each part of the update: the cross products C, the second
moment V_full, the second moment V of the plan that ran."""
SUM, PAIRS, COUNT = 6, 7, 8
"""Rows of two control quantities whose means are known, and how many rows there are."""
_LEAST_SQUARED_NORM = 1e-9
"""Squared norms are told apart down to this share of their mean."""


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
        first=np.zeros(COUNT), second=np.zeros((COUNT, COUNT)),
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
    factor = np.ones(COUNT)
    for means, part in zip(relative, ROWS, strict=True):
        shape = shrunk(means, state.forget)
        factor[list(ROWS[part][1:])] = (data_weight**2 @ shape) / (known**2 @ shape[:count])
    return replace(
        state,
        first=state.first * factor,
        second=state.second * np.outer(factor, factor),
        relative=(relative[0], relative[1]),
    )


def observe(
    state: NoiseState,
    record: RoundRecord,
    data_weight: Floats,
    lora_rank: int,
    aggregation_weight: Floats | None = None,
) -> NoiseState:
    r"""Take one round into account. An empty round is an observation like any other.

    With w_n the aggregation weights of the round (E[w_n] = a_n, independent over clients, and the
    updates independent given the adapter), these are unbiased, whatever the plan:

    - :math:`\|\sum_n w_n\Delta_n\|^2 - \sum_n w_n^2\|\Delta_n\|^2` for
      :math:`\sum_{n \ne m} a_n a_m \langle m_n, m_m\rangle`,
    - :math:`\sum_n a_n w_n \|\Delta_n\|^2 / \kappa_n` for :math:`V_{full}`
      (of the LoRA part to first order in the learning rate; the head has no kappa),
    - :math:`\sum_n w_n^2 \|\Delta_n\|^2` for V of the plan that ran.

    Where E[w_n] = p_n, the first is for the pairs of p, and w_n a_n / p_n stands in the second.
    Updates of rounds that overlap were trained on adapters some beats apart, and pass for ones of
    the same.

    Args:
        state: what was known before.
        record: of the round, as `run_round` made it.
        data_weight: a_n, shape (N,), sums to 1.
        lora_rank: r.
        aggregation_weight: p_n of the plan that ran, shape (N,); None: a_n.

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
    if aggregation_weight is not None:
        share = share * data_weight[client] / aggregation_weight[client]
    values = np.zeros(COUNT)
    values[SUM], values[PAIRS] = weight.sum(), weight.sum() ** 2 - (weight**2).sum()
    full_rank = np.zeros((2, len(people)))
    for row, part in enumerate(ROWS):
        squared = np.array([getattr(p, f"{part}_squared_norm") for p in people], dtype=np.float64)
        full_rank[row] = squared / kappa if part == "lora" else squared
        spent = float((weight**2 * squared).sum())
        cross = getattr(record, f"{part}_squared_norm") - spent
        values[list(ROWS[part])] = cross, (share * weight * full_rank[row]).sum(), spent
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
    return fold(means, client, np.maximum(squared_norm / drift, _LEAST_SQUARED_NORM), forget)
