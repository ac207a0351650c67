"""Overlapping rounds where links fade: how far from the clock is the law, which knows their mean?

    OMP_NUM_THREADS=1 python benchmarks/overlap_fading.py [--beats 4000]

Five populations whose band never idles, with the schedule planned for each. The truth is the
clock's own service with gains drawn for every upload: those of which the least is left go first,
or, as where links hold still, those that were ready first. Runs for a minute or two on one core.
"""

import argparse
from dataclasses import replace

import numpy as np
from fading_law import POPULATIONS, population

from fedpace.core.profile import Clients, System
from fedpace.core.rng import rng_for
from fedpace.planning.overlap.fleet import fleet_of
from fedpace.planning.overlap.objective import cost_of
from fedpace.planning.overlap.planner import overlapping
from fedpace.planning.overlap.schedule import OverlappingSchedule
from fedpace.planning.solver.objective import Problem
from fedpace.wireless.channel import faded, fading_gains
from fedpace.wireless.latency import start_seconds, upload_bits
from fedpace.wireless.network import Network, planning_clients
from fedpace.wireless.service import Sending, serve

WARM_UP = 100


def followed(
    clients: Clients, system: System, made: OverlappingSchedule, beats: int, shortest_first: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Let the clock's band serve a schedule: updates by client, sum of their ages, all ages."""
    count, beat = len(clients), made.beat_seconds
    rank = made.sketch_rank.astype(float)
    ready = system.overhead_seconds + start_seconds(clients, system, rank)
    bits = upload_bits(system, rank)
    underway: dict[int, Sending] = {}
    born, gain = np.zeros(count, dtype=int), np.ones(count)
    updates, total, ages = np.zeros(count), np.zeros(count), []
    rng = rng_for(0, "simulation", 15)
    for index in range(WARM_UP + beats):
        now, gains = index * beat, fading_gains(0, index, count)
        for n in np.flatnonzero(rng.random(count) < made.start_probability).tolist():
            if n not in underway:
                born[n], gain[n] = index, gains[n]
                underway[n] = Sending(n, now + ready[n], float(bits[n]))
        served, _ = serve(
            list(underway.values()), faded(clients, gain), system.bandwidth_hz, now=now,
            until=now + beat, shortest_first=shortest_first,
        )  # fmt: skip
        underway = {u.client: u for u in served if u.arrived_seconds is None}
        arrived = [u.client for u in served if u.arrived_seconds is not None]
        if index >= WARM_UP:
            late = index + 1 - born[arrived]
            updates[arrived] += 1
            total[arrived] += late
            ages += late.tolist()
    return updates, total, np.array(ages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beats", type=int, default=4000)
    beats = parser.parse_args().beats
    print("| population | N | band used | order | updates: law / clock | mean age, beats: law, "
          "clock | p95 age: law, clock | seconds: clock / law |")  # fmt: skip
    print("|---|---:|---:|---|---:|---:|---:|---:|")
    for name, count in POPULATIONS:
        clients, system = population(name, count)
        system = replace(system, noise_ratio=0.5)
        seen = planning_clients(Network(clients, system))
        made = overlapping(Problem(clients=seen, system=system))
        fleet, law, rank = fleet_of(seen, system), made.law, made.sketch_rank.astype(float)
        for shortest_first in (True, False):
            updates, total, ages = followed(clients, system, made, beats, shortest_first)
            came = updates > 0
            real = replace(
                law,
                chance=np.where(came, updates / beats, law.chance),
                age_beats=np.where(came, total / np.maximum(updates, 1), law.age_beats),
            )
            cost = cost_of(fleet, real, rank).objective_seconds
            p95 = np.quantile(ages, 0.95, method="inverted_cdf")
            cells = (
                name, count, f"{law.utilisation:.2f}",
                "least left" if shortest_first else "first come",
                f"{law.chance.sum() * beats / updates.sum():.2f}",
                f"{law.mean_age_seconds() / law.beat_seconds:.2f}, {ages.mean():.2f}",
                f"{law.p95_age_seconds() / law.beat_seconds:.0f}, {p95:.0f}",
                f"{cost / made.cost.objective_seconds:.3f}",
            )  # fmt: skip
            print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main()
