"""Who joins a round."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpace.core.plan import Plan
from fedpace.core.profile import Floats
from fedpace.core.rng import rng_for


@dataclass(frozen=True, slots=True, eq=False)
class Participation:
    """The clients asked to join a round."""

    client: NDArray[np.int64]
    """Positions in the population, ascending, shape (M,)."""
    inverse_probability: Floats
    """What makes the aggregate unbiased, shape (M,): 1 / q_n, or draws_n / (K p_n)."""


def sample_participants(plan: Plan, round_index: int, seed: int) -> Participation:
    """Draw the participants of a round.

    Independent sampling (arXiv 2505.23555): client n joins with probability q_n, whatever the
    others do; a round may be empty. A plan with `draws` = K instead draws K times with
    replacement (Luo et al., INFOCOM 2022); a client drawn twice trains once and counts twice.

    Args:
        plan: gives q_n, or p_n and K.
        round_index: 0, 1, 2, ...
        seed: the run's seed.

    Returns:
        The participants and their inverse probabilities: E[inverse_probability * joined] = 1.
    """
    rng = rng_for(seed, "participation", round_index)
    chance = plan.sampling_probability
    if plan.draws is None:
        joined = np.flatnonzero(rng.random(len(plan)) < chance)
        return Participation(joined, 1.0 / chance[joined])
    drawn = rng.choice(len(plan), size=plan.draws, p=chance / chance.sum())
    joined, times = np.unique(drawn, return_counts=True)
    return Participation(joined, times / (plan.draws * chance[joined]))
