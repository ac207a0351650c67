"""Charge a round that was trained once on other networks, or by another rule for the band.

Who takes part, and what is learned from it, does not depend on the network where the plan does
not; only the seconds do.
"""

import numpy as np

from fedpace.core.record import RoundRecord
from fedpace.wireless.network import Network, charge


def round_seconds(record: RoundRecord, network: Network, seed: int, now: float) -> float:
    """Return how long a recorded round takes on a network, s.

    Args:
        record: who took part, at which rank, with how many bytes.
        network: devices, links, rule; the population of the record.
        seed: the run's seed; fading is drawn from its stream.
        now: the clock on that network when the round begins, s: links that change stand there.
    """
    overhead, people = network.system.overhead_seconds, record.participants
    if not people:
        return overhead
    _, share = charge(
        network,
        seed,
        record.round,
        np.array([p.client for p in people]),
        np.array([p.sketch_rank for p in people]),
        np.array([8.0 * p.upload_bytes for p in people]),
        np.array([8.0 * p.download_bytes for p in people]),
        now=now,
    )
    return overhead + share.round_seconds
