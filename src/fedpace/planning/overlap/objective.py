r"""What a schedule of overlapping rounds costs, in the seconds of the synchronous objective.

.. math:: J = D\,\bar\kappa^p\,\frac{1 + \theta\,d + v}{1 + \rho}, \qquad
    d = \sum_n a_n (E[b_n] - 1), \quad
    v = \frac{\rho}{V_\mathrm{full}} \sum_n \frac{a_n^2 \kappa_n \Gamma_n}{f_n D}.

The beats needed are those of the best step, which shrinks with the delay d and the noise v alike
(docs/theory.md). Where every update counts in the beat after its start, d = 0, f_n D is q_n times
availability, and J is (round time) x (relative rounds): so the two schedules compare. Method.md's
form, D + theta sum a_n c_n + ..., charges a synchronous round for its own duration twice, and takes
an update to count when it arrives, not at the next beat.
"""

from dataclasses import dataclass

import numpy as np

from fedpace.core.profile import Clients, Floats, System
from fedpace.planning.overlap.fleet import Fleet, fleet_of
from fedpace.planning.overlap.law import QueueLaw, queue_law
from fedpace.planning.overlap.step import THETA

__all__ = ["Cost", "cost_of", "limit_seconds", "schedule_cost"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What makes up the objective."""

    objective_seconds: float
    delay_beats: float
    """d: adapters between the one an update was trained on and the one it is added to, weighted by
    data; 0 in a synchronous schedule."""
    noise: float
    """v: noise of a beat over the squared mean update, noise_ratio V / V_full."""
    relative_beats: float
    """Beats as a multiple of the rounds of full participation at full rank."""


def cost_of(fleet: Fleet, law: QueueLaw, rank: Floats, theta: float = THETA) -> Cost:
    """Return the cost of a schedule whose law is known.

    Args:
        fleet: the clients.
        law: rates and ages.
        rank: k, shape (N,), real-valued.
        theta: price of the delay.
    """
    kappa, weight = fleet.lora_rank / rank, fleet.members * fleet.data_weight
    delay = float(weight @ (law.age_beats - 1))
    noise = float((fleet.members * fleet.noise * kappa) @ (1 / law.chance))
    beats = (1 + theta * delay + noise) / (1 + fleet.noise_ratio)
    beats *= float(weight @ kappa / weight.sum()) ** fleet.power
    return Cost(float(law.beat_seconds * beats), delay, noise, float(beats))


def schedule_cost(
    start_probability: Floats,
    sketch_rank: Floats,
    beat_seconds: float,
    clients: Clients,
    system: System,
    theta: float = THETA,
) -> tuple[Cost, QueueLaw]:
    """Return what any schedule of overlapping rounds costs, and its law.

    Args:
        start_probability: q_n, chance that an idle client is asked at a beat, shape (N,).
        sketch_rank: k_n, shape (N,).
        beat_seconds: D, s.
        clients: N clients.
        system: what they share.
        theta: price of the delay.

    Example:
        >>> clients = Clients.from_columns(
        ...     data_weight=[1, 1], step_seconds=[0.1, 0.5], spectral_efficiency=[4, 4])
        >>> system = System(bandwidth_hz=1e7, lora_rank=8, noise_ratio=0.5)
        >>> cost, law = schedule_cost(np.ones(2), np.full(2, 8.0), 1.0, clients, system)
        >>> law.age_beats.tolist(), round(cost.objective_seconds, 3)
        ([1.0, 3.0], 2.167)
    """
    fleet = fleet_of(clients, system)
    law = queue_law(
        start_probability, fleet.ready_seconds(sketch_rank), fleet.work_seconds(sketch_rank),
        beat_seconds, fleet.lag_seconds(sketch_rank), fleet.availability, None,
    )  # fmt: skip
    return cost_of(fleet, law, sketch_rank, theta), law


def limit_seconds(clients: Clients, system: System) -> float:
    r"""Return a lower limit of the objective of any scheme on this band.

    .. math:: \frac{1}{1 + \rho} \frac{\rho}{V_\mathrm{full}}
        \Big(\sum_n a_n \sqrt{\Gamma_n t_n(r)}\Big)^2 / W

    An update of client n with k components takes t_n(k) of the band and has the noise of
    kappa_n = r/k full ones, and kappa t_n(k) >= t_n(r). So with a band that is always in use by
    those who are worth most (f_n in proportion to a_n sqrt(Gamma_n / t_n), by Cauchy and Schwarz),
    no waiting, no delay and no way to go, this much noise is left to average.

    Args:
        clients: N clients.
        system: gives W, r, the message sizes and the noise ratio.

    Returns:
        Seconds, comparable with `objective_seconds` of a plan.

    Example:
        >>> clients = Clients.from_columns(
        ...     data_weight=[1, 1], step_seconds=[9, 9], spectral_efficiency=[1, 1])
        >>> system = System(bandwidth_hz=1e6, lora_rank=8, bits_per_rank=1e6, noise_ratio=0.5)
        >>> round(limit_seconds(clients, system), 6)  # 1/3 of two updates of 8 s each
        5.333333
    """
    fleet = fleet_of(clients, system)
    work = fleet.work_seconds(np.full(len(clients), float(system.lora_rank)))
    return float(np.sum(np.sqrt(fleet.noise * work)) ** 2 / (1 + system.noise_ratio))
