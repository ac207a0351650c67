"""How long a round waits: from the predicted distribution of its duration."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from fedpace.core.messages import ClientTask
from fedpace.core.profile import Clients
from fedpace.estimation.client_means import ClientMeans
from fedpace.planning.renewal import Renewal
from fedpace.planning.renewal_state import overhead_seconds
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.latency import download_bits, start_seconds, upload_bits
from fedpace.wireless.network import Network, charge

QUANTILE = 0.99
"""With this probability nobody is late who is as fast as usual."""
SLACK = 2.0
"""What the law of seconds does not know: a processor that is shared, a link that breaks off."""
LEAST_SECONDS = 10.0
"""A pause of a process, a lost packet: not what should cost a client its round."""


CEILING = 10.0
"""How many times as long as its typical client a fleet waits for any: each answer just before the
deadline makes the next one longer, without end."""


@dataclass(frozen=True, slots=True, eq=False)
class Deadline:
    """The longest that a round waits, given who takes part.

    Seconds of client n scatter around their mean like a log-normal variable, with the variance
    that the rounds so far have shown; the latest of M then lies below the slowest mean times
    exp(z sigma), z = Phi^-1(QUANTILE^(1/M)), with at least that probability. It is never longer
    than `CEILING` times what the median client takes, nor than `patience_seconds`.
    """

    renewal: Callable[[], Renewal]
    """Tells what is known of the clients' seconds by now."""
    network: Network
    seed: int
    patience_seconds: float
    """Waited until any client was seen twice, as a profile says little about another fleet; and at
    most."""

    def __call__(self, tasks: Sequence[ClientTask]) -> float:
        """Return the seconds; `tasks` are those of the round, at least one."""
        renewal = self.renewal()
        start, demand = renewal.state.start, renewal.state.demand
        if start.errors == 0:
            return self.patience_seconds
        timed = renewal.timed(len(tasks))
        still = replace(self.network.system, fading=False)
        network = replace(self.network, clients=timed, system=still, gains=None)
        rank = np.array([t.sketch_rank for t in tasks])
        _, share = charge(
            network, self.seed, 0, np.array([t.client for t in tasks]), rank,
            upload_bits(network.system, rank), download_bits(network.system, rank),
        )  # fmt: skip
        latest = float(norm.ppf(QUANTILE ** (1 / len(tasks))))
        factor = math.exp(latest * math.sqrt(max(_variance(start), _variance(demand))))
        finish = factor * float(share.finish_seconds.max())
        overhead = overhead_seconds(renewal.state, network.system)
        typical = self._typical_seconds(timed, rank, np.flatnonzero(start.observations))
        most = CEILING * typical + min(overhead, typical + LEAST_SECONDS)
        limit = SLACK * min(finish + overhead, most)
        return min(self.patience_seconds, max(LEAST_SECONDS, limit))

    def _typical_seconds(
        self, timed: Clients, rank: NDArray[np.int64], seen: NDArray[np.int64]
    ) -> float:
        """Return what the median of the clients seen takes at a participant's share of the band."""
        system = self.network.system
        same = np.full(len(timed), float(np.median(rank)))
        share = np.full(len(seen), system.bandwidth_hz / len(rank))
        sending = upload_bits(system, same)[seen] / rate_bps(share, **uplink(timed, seen))
        seconds = np.sort(start_seconds(timed, system, same)[seen] + sending)
        return float(seconds[(len(seconds) - 1) // 2])


def _variance(means: ClientMeans) -> float:
    """Variance of the logarithm of one client's observations."""
    return math.log1p(means.squared_errors / means.errors) if means.errors else 0.0
