r"""Two classical stand-ins for the mean round time, beside the law of `round_time`.

Both are one formula, and both are wrong in a known direction or for a known reason; how far, is
measured in docs/round-time.md.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from fedpace.core.profile import Clients, System
from fedpace.planning.round_time.law import RoundLaw
from fedpace.planning.round_time.upper_bound import bound_and_gradient
from fedpace.wireless.channel import bandwidth_for_rate

__all__ = ["mean_field_seconds", "upper_bound_seconds"]


def upper_bound_seconds(
    sampling_probability: ArrayLike, sketch_rank: ArrayLike, clients: Clients, system: System
) -> float:
    """Upper bound on the mean round time: all compute, then send one after another.

    The formula is that of `time_bound`, by which `paper` plans.

    Args:
        sampling_probability: q, shape (N,), in (0, 1].
        sketch_rank: k, shape (N,), real-valued.
        clients: N clients; n takes part with probability q_n availability_n.
        system: what they share.

    Returns:
        The bound, s, with the round's overhead.
    """
    law = RoundLaw.of(sampling_probability, sketch_rank, clients, system)  # checks both
    q = np.asarray(sampling_probability, dtype=np.float64)
    k = np.broadcast_to(np.asarray(sketch_rank, dtype=np.float64), (len(law),))
    return bound_and_gradient(q, k, clients, system)[0]


def mean_field_seconds(
    sampling_probability: ArrayLike, sketch_rank: ArrayLike, clients: Clients, system: System
) -> float:
    r"""Round time at which the mean need fits the band: the root of sum_n q_n w_n(s) = W.

    It waits for the slowest client even where that one hardly ever joins: the root lies behind
    every tau_n, and behind the solo time of every client whose own limit is below the band.

    Args:
        sampling_probability: q, shape (N,), in (0, 1].
        sketch_rank: k, shape (N,), real-valued.
        clients: N clients; n takes part with probability q_n availability_n.
        system: what they share.

    Returns:
        The root, s, with the round's overhead.
    """
    law = RoundLaw.of(sampling_probability, sketch_rank, clients, system)
    own = law.limit < 1
    low = float(max(law.start.max(), np.max(law.start[own] + law.solo[own], initial=0.0)))

    def excess(behind: float) -> float:
        need = bandwidth_for_rate(law.bits / (low + behind - law.start), **law.link)
        return min(float(law.probability @ need) / law.band - 1, 1e9)

    # At tau + sum q u, and at u, no client needs more than its part of the band.
    high = float(law.probability @ law.solo + law.solo.max())
    tiny = 1e-12 * (low + high)
    if excess(tiny) <= 0:
        return system.overhead_seconds + low
    return system.overhead_seconds + low + float(brentq(excess, tiny, high, xtol=1e-12 * high))
