"""The round time without any law: draw or list the participants, and let them finish together.

The exact distribution for a few clients, and the Monte Carlo truth that the law is held against.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fedpace.core.errors import InputError
from fedpace.core.plan import Decision
from fedpace.core.profile import Clients, Floats, System
from fedpace.core.rng import rng_for
from fedpace.planning.round_time.finish import fading_demands, round_seconds
from fedpace.planning.round_time.law import RoundLaw

__all__ = ["ENUMERABLE", "enumerate_round_seconds", "simulate_round_seconds"]

ENUMERABLE = 16
"""Most clients whose 2^N sets of participants are listed."""
_PAIRS = 1 << 21
"""Pairs of draw and client held at once."""


def simulate_round_seconds(
    decision: Decision, clients: Clients, system: System, draws: int, seed: int
) -> Floats:
    """Draw participants and return how long each round takes.

    A decision with `draws` is followed to the letter: its K draws are with replacement. Where links
    fade (`system.fading`), `clients` have their mean, and demands are drawn about it.

    Args:
        decision: sampling probabilities and ranks.
        clients: N clients; one that is asked answers with its availability.
        system: what they share.
        draws: number of rounds, D.
        seed: of the stream "simulation".

    Returns:
        T, shape (D,), s; the overhead alone for an empty round.
    """
    law = RoundLaw.of(decision.participation_probability(), decision.sketch_rank, clients, system)
    rng = rng_for(seed, "simulation")
    batches = enumerate(_drawn(decision, clients.availability, draws, rng))
    seconds = [
        round_seconds(law, joined, fading_demands(law, len(joined), seed, batch))
        for batch, joined in batches
    ]
    return system.overhead_seconds + np.concatenate(seconds)


def enumerate_round_seconds(
    decision: Decision, clients: Clients, system: System
) -> tuple[Floats, Floats]:
    """List every set of participants: its round time over these links, and its probability.

    Clients join independently, with `decision.participation_probability()` times availability.

    Args:
        decision: sampling probabilities and ranks.
        clients: N <= 16 clients.
        system: what they share.

    Returns:
        T, s, and the probability, each of shape (2^N,); set m has client n if bit n of m is set.

    Raises:
        InputError: too many clients.
    """
    count = len(clients)
    if count > ENUMERABLE:
        raise InputError(
            f"{count} clients have 2^{count} sets of participants; "
            f"list them for {ENUMERABLE} at most, or use simulate_round_seconds"
        )
    law = RoundLaw.of(decision.participation_probability(), decision.sketch_rank, clients, system)
    joined = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1 == 1
    chance = np.where(joined, law.probability, 1 - law.probability).prod(axis=1)
    return system.overhead_seconds + round_seconds(law, joined), chance


def _drawn(
    decision: Decision, availability: Floats, draws: int, rng: np.random.Generator
) -> Iterator[NDArray[np.bool_]]:
    """Yield who is there, shape (draws of a batch, N)."""
    batch = max(1, _PAIRS // len(decision))
    for first in range(0, draws, batch):
        size = min(batch, draws - first)
        if decision.draws is None:
            yield rng.random((size, len(decision))) < decision.sampling_probability * availability
            continue
        asked = rng.choice(
            len(decision), size=(size, decision.draws), p=decision.sampling_probability
        )
        joined = np.zeros((size, len(decision)), dtype=np.bool_)
        np.put_along_axis(joined, asked, True, axis=1)
        yield joined & (rng.random(joined.shape) < availability)
