"""What a run's rounds have cost its clients of their privacy, and whether one more is allowed."""

import numpy as np

from fedpace.core.plan import Plan
from fedpace.core.privacy import Privacy
from fedpace.core.profile import Floats
from fedpace.estimation.privacy_loss import ORDERS, epsilon, round_loss

__all__ = ["charged", "nothing_spent", "rounds_within", "told_of"]


def nothing_spent() -> Floats:
    """Return what clients have spent before the first round."""
    return np.zeros((0, len(ORDERS)))


def charged(spent: Floats, plan: Plan, weight: Floats, privacy: Privacy) -> Floats:
    """Return what every client has spent after one more round.

    Args:
        spent: so far, shape (clients so far, len(ORDERS)); who is new has spent nothing.
        plan: in force; with what chance each was asked.
        weight: what an update of each would have been multiplied by, shape (N,).
        privacy: z.

    Returns:
        Shape (N, len(ORDERS)).
    """
    loss = round_loss(plan.sampling_probability, weight, privacy.noise_multiplier)
    loss[: len(spent)] += spent
    return loss


def told_of(spent: Floats, weight: Floats, privacy: Privacy) -> dict[str, float]:
    """Return what `RoundRecord.privacy` says of a round."""
    each = epsilon(spent, privacy.delta)
    return {
        "epsilon_max": float(each.max()),
        "epsilon_client": float(np.argmax(each)),
        "epsilon_median": float(np.median(each)),
        "delta": privacy.delta,
        "noise_deviation": privacy.noise_multiplier * privacy.clip_norm * float(weight.max()),
        "ended": 0.0,
    }


def rounds_within(
    spent: Floats, plan: Plan, weight: Floats, privacy: Privacy, rounds: int
) -> tuple[int, int]:
    """Return how many more rounds of a plan no client's limit forbids, and who comes to it first.

    Args:
        spent: as for `charged`.
        plan: of all these rounds.
        weight: likewise.
        privacy: has the limit; without one all rounds are within it.
        rounds: how many are asked for, at least 1.

    Returns:
        From 0 to `rounds`; and the client that has spent most after one more than that.
    """
    limit = privacy.max_epsilon
    before = charged(spent, plan, weight, privacy)
    one = round_loss(plan.sampling_probability, weight, privacy.noise_multiplier)

    def after(count: int) -> Floats:
        with np.errstate(invalid="ignore"):
            loss = before + (count - 1) * one if count > 1 else before
        return epsilon(loss, privacy.delta)

    if limit is None or after(rounds).max() <= limit:
        return rounds, int(np.argmax(after(rounds)))
    low, high = 0, rounds
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if after(middle).max() <= limit else (low, middle)
    return low, int(np.argmax(after(high)))
