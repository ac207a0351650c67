"""A run of known noise and known seconds, for the tests of renewals."""

from dataclasses import replace

import numpy as np

from fedpace.core.plan import Decision, Plan
from fedpace.planning.renewal import renew_every
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.latency import start_seconds, upload_bits

OVERHEAD = 0.5


def prices(clients, system):
    """Band seconds a participation costs, and noise it takes away: w_n and c_n."""
    load = upload_bits(system, np.full(len(clients), 4.0)) / clients.spectral_efficiency
    squared = clients.data_weight**2 * clients.update_second_moment
    cost = load / system.bandwidth_hz + 0.01 * clients.step_seconds
    return cost, system.noise_ratio * squared / squared.sum()


def objective(plan, clients, system):
    cost, noise = prices(clients, system)
    q = plan.sampling_probability
    return (OVERHEAD + cost @ q) * (1 + (noise / q).sum()) / (1 + system.noise_ratio)


def best_plan(clients, system, *, start=None, predict=True):
    """Minimises `objective`: q_n = sqrt(overhead c_n / w_n) by Cauchy-Schwarz, then cut to 1."""
    cost, noise = prices(clients, system)
    q = np.clip(np.sqrt(OVERHEAD * noise / cost), 1e-3, 1.0)
    return Plan("stand-in", clients.client_id, Decision(q, np.full(len(clients), 4)))


def timed(record, clients, system):
    """The record, with the times that these clients would have had."""
    people = []
    for p in record.participants:
        rank = np.full(len(clients), float(p.sketch_rank))
        band = 2e5
        rate = rate_bps(band, **uplink(clients, [p.client]))[0]
        bits = upload_bits(system, [p.sketch_rank])[0]
        start = start_seconds(clients, system, rank)[p.client]
        people.append(
            replace(
                p, upload_bytes=int(bits) // 8, upload_seconds=float(bits / rate),
                bandwidth_hz=band, start_seconds=float(start),
            )
        )  # fmt: skip
    return replace(record, participants=tuple(people))


def simulate(world, real, system, renewal, plan, count, seed=1):
    """The loop of a run: the plan of each round, the last one for the round after; the renewal."""
    rng, plans = np.random.default_rng(seed), [plan]
    for index in range(count):
        record = next(iter(world.rounds(plans[-1].sampling_probability, 1, rng)))
        record = timed(replace(record, round=index), real, system)
        made, renewal = renewal.after(record, plans[-1])
        plans.append(made)
    return plans, renewal


def renewal_of(clients, system, **options):
    options = {"every": 5, "objective": objective, **options}
    return renew_every(best_plan, clients, system, **options)
