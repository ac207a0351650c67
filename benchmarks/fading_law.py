"""Does the law of round times hold where links fade, and what do plans gain by it?

    OMP_NUM_THREADS=1 python benchmarks/fading_law.py [--rounds 200000]

Five populations whose band never idles. Truth are rounds with the gains that the clock draws, over
the links themselves. Against them: mean and 95 % quantile of the law of mean links and of the law
of fading links, for the plan made with the latter; and predicted seconds x rounds, both true, of
plans made with the one and with the other.
"""

import argparse
from dataclasses import replace

import numpy as np

from fedpace.core.profile import Clients, System
from fedpace.planning.planner import plan
from fedpace.planning.round_time.distribution import round_time
from fedpace.planning.solver.objective import relative_rounds
from fedpace.wireless.channel import GAIN_FLOOR
from fedpace.wireless.latency import start_seconds, upload_bits
from fedpace.wireless.links import ConstantEfficiency
from fedpace.wireless.network import Network, planning_clients
from fedpace.wireless.population import draw_clients, scenario_named

POPULATIONS = (
    ("cell-balanced", 10), ("cell-mild", 20), ("cell-balanced", 40), ("cell-link-bound", 60),
    ("cell-compute-bound", 100),
)  # fmt: skip


def population(name: str, count: int) -> tuple[Clients, System]:
    """Draw clients of log-normal sizes on 1.4 MHz."""
    system = System(
        bandwidth_hz=1.4e6, lora_rank=16, fixed_bits=148e3, bits_per_rank=295e3,
        overhead_seconds=1.0, allocation="work-conserving", fading=True,
    )  # fmt: skip
    weight = np.exp(0.8 * np.random.default_rng(count).normal(size=count))
    return draw_clients(scenario_named(name), weight, 0, system), system


def drawn_rounds(clients: Clients, system: System, made, rounds: int) -> np.ndarray:
    """Seconds of drawn rounds: each client after all before it (docs/clock.md)."""
    rng, q = np.random.default_rng(1), made.sampling_probability
    rank = made.sketch_rank.astype(float)
    start, hertz = start_seconds(clients, system, rank), upload_bits(system, rank)
    busy = np.zeros(rounds)
    for n in np.argsort(start):
        gains = np.maximum(rng.exponential(size=rounds), GAIN_FLOOR)
        efficiency = ConstantEfficiency().faded(clients.spectral_efficiency[n], gains)
        seconds = hertz[n] / system.bandwidth_hz / efficiency
        joins = rng.random(rounds) < q[n]
        busy = np.where(joins, np.maximum(busy, start[n]) + seconds, busy)
    return busy + system.overhead_seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200_000)
    rounds = parser.parse_args().rounds
    for name, count in POPULATIONS:
        clients, system = population(name, count)
        seen, still = planning_clients(Network(clients, system)), replace(system, fading=False)
        for planner in ("exact", "uniform"):
            old, new = (plan(seen, s, planner, predict=False) for s in (still, system))
            truth = {made: drawn_rounds(clients, system, made, rounds) for made in (old, new)}
            real = truth[new].mean(), np.quantile(truth[new], 0.95)
            laws = [round_time(new, seen, view) for view in (still, system)]
            off = [law.mean / real[0] - 1 for law in laws]
            off += [law.quantile(0.95) / real[1] - 1 for law in laws]
            cells = [name, str(count), planner, *(f"{100 * x:.1f}" for x in off)]
            # Rounds needed do not depend on the law.
            before, after = (
                truth[made].mean() * plan_rounds(made, seen, system) for made in (old, new)
            )
            asked = (f"{made.sampling_probability.sum():.1f}" for made in (old, new))
            print("|", " | ".join([*cells, *asked, f"{100 * (1 - after / before):.1f}"]), "|")


def plan_rounds(made, seen: Clients, system: System) -> float:
    """Rounds that a plan needs, relative to full participation."""
    q, rank = made.sampling_probability, made.sketch_rank.astype(float)
    return relative_rounds(q, rank, seen, system)


if __name__ == "__main__":
    main()
