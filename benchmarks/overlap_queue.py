"""Overlapping rounds: predicted update rates, ages and use of the band against the simulated queue.

    OMP_NUM_THREADS=1 python benchmarks/overlap_queue.py [--populations 50] [--first 0]

Populations of 5 to 1,000 clients: log-normal or two kinds of devices, narrow to wide, beats from a
small part of the median computation to many times it, clients that start always, often or seldom,
the band used from a tenth to nearly always. The truth is `simulate_queue` over four million
clients times beats (40,000 beats at most). Runs for about three minutes on one core.
"""

import argparse
import time

import numpy as np

from fedpace.core.rng import rng_for
from fedpace.planning.overlap.law import queue_law
from fedpace.planning.overlap.simulation import simulate_queue

COUNTS = (5, 8, 12, 20, 40, 80, 150, 300, 600, 1000)
WARM_UP = 500
Population = tuple[np.ndarray, np.ndarray, np.ndarray, float]


def population(index: int) -> Population:
    """Draw start probabilities, seconds until ready, seconds of upload, and a beat."""
    rng, count = rng_for(index, "population", 140), COUNTS[index % len(COUNTS)]
    if index % 3 == 2:  # two kinds of devices, each much alike
        fast = rng.random(count) < 0.5
        ready = np.where(fast, rng.uniform(11.4, 14.1, count), rng.uniform(170, 174, count))
    else:
        ready = rng.lognormal(sigma=rng.choice([0.3, 1.0, 1.5]), size=count)
    upload = rng.lognormal(sigma=rng.choice([0.3, 0.8]), size=count)
    beat = np.quantile(ready, rng.uniform(0.2, 1)) * rng.choice([0.3, 0.6, 1, 1.5])
    start = rng.choice([1.0, 0.5, 0.2]) * rng.uniform(0.2, 1, count) ** rng.choice([0, 1, 2])
    if rng.random() < 0.3:
        start = np.ones(count)
    if rng.random() < 0.4:
        start = np.where(ready > np.median(ready), 1.0, start * rng.uniform(0.05, 1))
    rate = 1 / (beat * (np.ceil(ready / beat) + (1 - start) / start))
    return start, ready, upload * rng.uniform(0.1, 0.95) / (rate @ upload), float(beat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--populations", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    print("| # | N | band used | wait / age | total rate | band | mean age | rates, r.m.s. "
          "| p95 age, beats: law, simulated | law, s |")  # fmt: skip
    print("|" + "---|" * 10)
    errors, quantiles = [], []
    for index in range(arguments.first, arguments.first + arguments.populations):
        start, ready, upload, beat = population(index)
        run = simulate_queue(
            start, ready, upload, beat, beats=int(min(40_000, 4e6 / len(start))), seed=index,
            warm_up_beats=WARM_UP,
        )  # fmt: skip
        began = time.process_time()
        law = queue_law(start, ready, upload, beat)
        seconds = time.process_time() - began
        counts, rate = run.updates(), law.update_rate()
        seen = counts > 0
        off = rate[seen] / run.update_rate()[seen] - 1
        # What counting alone scatters is taken off.
        excess = np.average(off**2 - 1 / counts[seen], weights=counts[seen])
        error = (
            rate.sum() / run.update_rate().sum() - 1,
            law.utilisation / run.utilisation - 1,
            law.mean_age_seconds() / run.mean_age_seconds() - 1,
            float(np.sqrt(max(excess, 0))),
        )
        p95 = law.p95_age_seconds() / beat, run.p95_age_seconds() / beat
        errors.append(np.abs(error))
        quantiles.append(p95[0] / p95[1] - 1)
        print(
            f"| {index} | {len(start)} | {run.utilisation:.2f} | "
            f"{run.wait_seconds.mean() / run.mean_age_seconds():.2f} | "
            + " | ".join(f"{e:+.3f}" for e in error)
            + f" | {p95[0]:.0f}, {p95[1]:.0f} | {seconds:.2f} |",
            flush=True,
        )
    table = np.array(errors)
    for name, quantile in (("median", 0.5), ("90 %", 0.9), ("largest", 1.0)):
        row = " | ".join(f"{e:.4f}" for e in np.quantile(table, quantile, axis=0))
        print(f"| {name} |  |  |  | {row} |  |  |")
    print(f"beyond 2 %: {(table[:, :3] > 0.02).sum(axis=0).tolist()} of {len(table)} (total rate, "
          f"band, mean age); p95 age differs in {np.count_nonzero(quantiles)}, "
          f"by at most {100 * np.abs(quantiles).max():.0f} %")  # fmt: skip


if __name__ == "__main__":
    main()
