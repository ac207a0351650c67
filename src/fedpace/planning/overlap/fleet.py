"""What the planner of overlapping rounds needs of the clients: all times affine in the rank."""

from dataclasses import dataclass, replace

import numpy as np

from fedpace.core.profile import Clients, Floats, System
from fedpace.planning.round_time.grouped import group_clients
from fedpace.planning.solver.grouping import group_mean
from fedpace.planning.solver.objective import noise_weight
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.latency import start_seconds, upload_bits

__all__ = ["Fleet", "fleet_of", "grouped_fleet"]

_MOST_GROUPS = 2000
"""Groups in the place of a population, at most."""
_LEAST_NOISE = 1e-30
"""In the place of no noise at all: updates are then worth nothing, and as rare as can be."""


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """N clients, or N groups of alike ones; every column of shape (N,).

    Pairs are (at rank 0, for each rank component).
    """

    data_weight: Floats
    """a_n of one member."""
    noise: Floats
    """rho a_n^2 Gamma_n / V_full of one member: times kappa / (f D) it is its share of the noise of
    a beat."""
    ready: tuple[Floats, Floats]
    """From a beat until the client can send, s: the server's overhead, download, local steps."""
    work: tuple[Floats, Floats]
    """What the upload takes of the whole band, s."""
    lag: tuple[Floats, Floats]
    """How much longer it takes a client that can use part of the band only, s."""
    availability: Floats
    max_rank: Floats
    joules: tuple[Floats, Floats]
    max_joules: Floats
    members: Floats
    lora_rank: int
    power: int
    """p: the rounds grow as the mean of kappa to this power."""
    noise_ratio: float
    overhead_seconds: float
    share: Floats
    """a_n of one member, also where `data_weight` is p_n: the smoothness of what is minimised grows
    with the mean of kappa over the data."""
    budget_seconds: float | None = None
    """How long `max_joules` is for, s: a round that waits. None: a beat."""

    def __len__(self) -> int:
        return len(self.data_weight)

    def reweighted(self, weight: Floats) -> "Fleet":
        """Return the same clients with shares p_n of what a beat aggregates, shape (N,)."""
        noise = self.noise * (weight / self.data_weight) ** 2
        return replace(self, data_weight=weight, noise=noise)

    def ready_seconds(self, rank: Floats) -> Floats:
        """From a beat until each client can send, shape (N,), s."""
        return self.ready[0] + rank * self.ready[1]

    def work_seconds(self, rank: Floats) -> Floats:
        """What each upload takes of the whole band, shape (N,), s."""
        return self.work[0] + rank * self.work[1]

    def lag_seconds(self, rank: Floats) -> Floats:
        """From when the band could be done with an upload until it arrives, shape (N,), s."""
        return self.lag[0] + rank * self.lag[1]

    def alone_seconds(self, rank: Floats) -> Floats:
        """From its start to its arrival, were the band a client's own, shape (N,), s."""
        return self.ready_seconds(rank) + self.work_seconds(rank) + self.lag_seconds(rank)

    def age_alone(self, rank: Floats, beat: float) -> Floats:
        """Beats from a start to the beat that counts it, were the band its own, shape (N,)."""
        return np.asarray(np.maximum(np.ceil(self.alone_seconds(rank) / beat - 1e-9), 1.0))

    def most_often(self, rank: Floats, beat_seconds: float) -> Floats:
        """Updates a beat that each client's energy pays for, shape (N,)."""
        joules = self.joules[0] + rank * self.joules[1]
        beats = 1.0 if self.budget_seconds is None else self.budget_seconds / beat_seconds
        pays = self.max_joules / beats / np.where(joules > 0, joules, 1.0)
        return np.where(joules > 0, pays, np.inf)


def fleet_of(
    clients: Clients,
    system: System,
    weight: Floats | None = None,
    round_seconds: float | None = None,
) -> Fleet:
    """Return the clients as the planner sees them.

    A client whose own band is narrower than W is charged the work of its share, and sends longer.
    A Shannon link is taken as it is with the whole band to itself.

    Args:
        clients: N clients.
        system: what they share.
        weight: p_n, each client's share of what a beat aggregates, shape (N,); None: a_n.
        round_seconds: mean round that waits, s, for which `max_joules_per_round` is; None: it is
            for a beat.
    """
    zero, one = np.zeros(len(clients)), np.ones(len(clients))
    band = np.minimum(system.bandwidth_hz, clients.max_bandwidth_hz)
    rate = rate_bps(band, **uplink(clients))
    share = band / system.bandwidth_hz

    def pair(at_zero: Floats, at_one: Floats) -> tuple[Floats, Floats]:
        return at_zero, at_one - at_zero

    alone = pair(upload_bits(system, zero) / rate, upload_bits(system, one) / rate)
    fleet = Fleet(
        data_weight=clients.data_weight,
        noise=np.maximum(noise_weight(clients, system) * clients.availability, _LEAST_NOISE),
        ready=pair(
            system.overhead_seconds + start_seconds(clients, system, zero),
            system.overhead_seconds + start_seconds(clients, system, one),
        ),
        work=(share * alone[0], share * alone[1]),
        lag=((1 - share) * alone[0], (1 - share) * alone[1]),
        availability=clients.availability,
        max_rank=np.floor(np.minimum(clients.max_rank, system.lora_rank)),
        joules=(
            system.local_steps * clients.step_joules
            + clients.upload_joules_per_bit * system.fixed_bits,
            clients.upload_joules_per_bit * system.bits_per_rank,
        ),
        max_joules=clients.max_joules_per_round,
        members=one,
        lora_rank=system.lora_rank,
        power=1 if system.sketch.scaled_by == "client" else 0,
        noise_ratio=system.noise_ratio,
        overhead_seconds=system.overhead_seconds,
        share=clients.data_weight,
        budget_seconds=round_seconds,
    )
    return fleet if weight is None else fleet.reweighted(weight)


def grouped_fleet(single: Fleet, clients: Clients, system: System) -> Fleet:
    """Return some two thousand groups of similar clients.

    Members share the rank and, where their band has one price, the best rates are in proportion to
    the roots of their noise; so a group has the square of the mean root.

    Args:
        single: the clients as `fleet_of` gives them.
        clients: N clients.
        system: what they share.
    """
    crowd = group_clients(clients, system, _MOST_GROUPS, worth=np.sqrt(single.noise))
    size = np.diff(np.append(crowd.first, len(clients))).astype(np.float64)

    def mean(column: Floats) -> Floats:
        return group_mean(crowd, column)

    def least(column: Floats) -> Floats:
        return np.asarray(np.minimum.reduceat(column[crowd.order], crowd.first))

    def pair(columns: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
        return mean(columns[0]), mean(columns[1])

    return Fleet(
        mean(single.data_weight), mean(np.sqrt(single.noise)) ** 2, pair(single.ready),
        pair(single.work), pair(single.lag), mean(single.availability), least(single.max_rank),
        pair(single.joules), least(single.max_joules), size, single.lora_rank, single.power,
        single.noise_ratio, single.overhead_seconds, mean(single.share), single.budget_seconds,
    )  # fmt: skip
