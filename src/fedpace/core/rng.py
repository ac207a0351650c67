"""The one source of randomness: a generator per named purpose, derived from one seed."""

import numpy as np

STREAMS = (
    "participation",  # (round)          who joins
    "sketch",  # (round, client)         which rank components
    "batches",  # (round, client)        which examples
    "fading",  # (round)                 block fading of all clients
    "population",  # (purpose)           devices and links of a scenario
    "partition",  # ()                   examples dealt to clients
    "split",  # ()                       held-out examples
    "adapter",  # ()                     initial adapter and task head
    "planner",  # (start)                starts of a multi-start search
    "noise",  # (round, client)          noise added on purpose (privacy, rounding)
    "simulation",  # (purpose)           Monte Carlo checks of a prediction
    "availability",  # (round)           who of those invited answers
    "dropout",  # (round, client, step, row, module)  inputs that a step leaves out
    "gains",  # (slot)                   links that change within a round
)
"""Names of the streams. New ones go at the end, or old seeds change their meaning."""


def rng_for(seed: int, stream: str, *key: int) -> np.random.Generator:
    """Return the generator of one named purpose.

    Client 3's sketch in round 9 is ``rng_for(seed, "sketch", 9, 3)``, whoever else joins, in
    whatever order, on whatever engine.

    Args:
        seed: the run's seed, >= 0.
        stream: a name in `STREAMS`.
        *key: what within the purpose, e.g. round and client; integers >= 0.

    Returns:
        A fresh generator; equal arguments give equal draws.

    Example:
        >>> rng_for(7, "sketch", 1).random() == rng_for(7, "sketch", 1).random()
        True
        >>> rng_for(7, "sketch", 1).random() == rng_for(7, "sketch", 1, 0).random()
        False
    """
    # A list seed pads with zeros, so [7, 1] and [7, 1, 0] collide; a spawn key does not.
    sequence = np.random.SeedSequence(seed, spawn_key=(STREAMS.index(stream), *key))
    return np.random.default_rng(sequence)
