r"""What a schedule of overlapping rounds costs, in the seconds of the synchronous objective.

.. math:: J = D\,\bar\kappa^p\,\frac{1 + \theta\,d + v}{1 + \rho}, \qquad
    d = \sum_n a_n (b_n - 1), \quad
    v = \frac{\rho}{V_\mathrm{full}} \sum_n a_n^2 \Gamma_n
        \Big(\frac{\kappa_n}{g_n} - (1 - \beta)(b_n - 1)(2 - b_n g_n)\Big).

The beats needed are those of the best step, which shrinks with the delay d and the noise v alike
(docs/theory.md, 9.3). g_n = f_n D is the mean number of updates in a beat and b_n their mean age.
What is taken off the noise is the regularity of a client that cannot start while it is busy: who
starts whenever it is idle adds no noise of taking part, only that of its batches, beta of Gamma_n.
Where every update counts in the beat after its start, d = 0, g_n is q_n times availability, and J
is (round time) x (relative rounds): so the two schedules compare. Method.md's form,
D + theta sum a_n c_n + ..., charges a synchronous round for its own duration twice, and takes an
update to count when it arrives, not at the next beat.
"""

from dataclasses import dataclass

import numpy as np

from fedpace.core.profile import Clients, Floats, System
from fedpace.planning.overlap.fleet import Fleet, fleet_of
from fedpace.planning.overlap.law import QueueLaw, queue_law
from fedpace.planning.overlap.step import THETA
from fedpace.wireless.channel import model_of, rate_bps, uplink
from fedpace.wireless.latency import upload_bits

__all__ = [
    "BATCH_NOISE",
    "Cost",
    "cost_of",
    "limit_seconds",
    "regularity",
    "regularity_loss",
    "schedule_cost",
]

BATCH_NOISE = 0.4
"""beta: share of the second moment of a client's update that is noise of its batches; the rest is
its mean, which differs from client to client. Seen are 0.16 to 0.30 in classification and 0.47 to
0.84 in language modelling (`benchmarks/batch_noise.py`)."""


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
    each = kappa / law.chance - regularity(law.age_beats, law.chance)
    noise = float((fleet.members * fleet.noise) @ each)
    beats = (1 + theta * delay + noise) / (1 + fleet.noise_ratio)
    share = fleet.members * fleet.share
    beats *= float(share @ kappa / share.sum()) ** fleet.power
    return Cost(float(law.beat_seconds * beats), delay, noise, float(beats))


def regularity(age_beats: Floats, chance: Floats) -> Floats:
    """Return what is taken off 1/g_n as a busy client cannot start, shape (N,).

    Derived in docs/theory.md, (55) and (56); 0 for a client whose update counts at once.

    Args:
        age_beats: b_n, shape (N,).
        chance: g_n, updates a beat, at most 1/b_n, shape (N,).
    """
    return np.asarray((1 - BATCH_NOISE) * (age_beats - 1) * (2 - age_beats * chance))


def regularity_loss(age_beats: Floats) -> Floats:
    """Return by how much `regularity` falls for each update a beat more, shape (N,).

    Args:
        age_beats: b_n, shape (N,).
    """
    return np.asarray((1 - BATCH_NOISE) * (age_beats - 1) * age_beats)


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
        ([1.0, 3.0], 1.967)
    """
    fleet = fleet_of(clients, system)
    law = queue_law(
        start_probability, fleet.ready_seconds(sketch_rank), fleet.work_seconds(sketch_rank),
        beat_seconds, fleet.lag_seconds(sketch_rank), fleet.availability, None,
    )  # fmt: skip
    return cost_of(fleet, law, sketch_rank, theta), law


def limit_seconds(
    clients: Clients, system: System, theta: float = THETA, *, weight: Floats | None = None
) -> float:
    r"""Return a lower limit of the objective of any scheme on this band.

    .. math:: \frac{1}{1 + \rho} \frac{\rho}{V_\mathrm{full}}
        \Big(\sum_n a_n \sqrt{\Gamma_n (1 - (1 - \beta) z_n^2)\, t_n(r)}\Big)^2 / W

    An update of client n with k components takes t_n(k) of the band and has the noise of
    kappa_n = r/k full ones, and kappa t_n(k) >= t_n(r). So with a band that is always in use by
    those who are worth most (f_n in proportion to the roots, by Cauchy and Schwarz), no waiting and
    no way to go, this much noise is left to average. z_n is 0 where the regularity of a client that
    is busy is worth less than the delay costs: for clients whose noise is below their share
    of the data (docs/theory.md, 9.3). Shannon links carry most when all send side by side, each
    in a part of the band: t_n is then d_n over what all carry together. Where links fade, no
    scheme is meant that waits for good gains.

    Args:
        clients: N clients.
        system: gives W, r, the message sizes and the noise ratio.
        theta: price of the delay.
        weight: as for `fleet_of`.

    Returns:
        Seconds, comparable with `objective_seconds` of a plan.

    Example:
        >>> clients = Clients.from_columns(
        ...     data_weight=[1, 1], step_seconds=[9, 9], spectral_efficiency=[1, 1])
        >>> system = System(bandwidth_hz=1e6, lora_rank=8, bits_per_rank=1e6, noise_ratio=0.5)
        >>> round(limit_seconds(clients, system), 6)  # 1/3 of two updates of 8 s each
        5.333333
    """
    if system.noise_ratio == 0:
        return 0.0
    fleet = fleet_of(clients, system, weight)
    work = _least_work(fleet, clients, system)
    worth = 2 * (1 - BATCH_NOISE) * fleet.noise
    busy = np.maximum(1 - theta * fleet.data_weight / np.maximum(worth, 1e-300), 0.0)
    noise = fleet.noise * (1 - (1 - BATCH_NOISE) * busy**2)
    return float(np.sum(np.sqrt(noise * work)) ** 2 / (1 + system.noise_ratio))


def _least_work(fleet: Fleet, clients: Clients, system: System) -> Floats:
    """Return what an upload at full rank takes of the band at least, shape (N,), s.

    The rate of a Shannon link is concave in its band and signal together, and doubles where both
    do; so no division of W carries more than one link with all the signals.
    """
    rank = np.full(len(clients), float(system.lora_rank))
    link = uplink(clients)
    model = model_of(link)
    if model.proportional:
        return fleet.work_seconds(rank)
    name, value = next(iter(link.items()))
    together = {name: model.side_by_side(np.array(value.mean()), np.array(float(len(clients))))}
    return np.asarray(upload_bits(system, rank) / rate_bps(system.bandwidth_hz, **together))
