"""How much does planning gain, and where? `exact` against other planners over a grid.

    OMP_NUM_THREADS=1 python benchmarks/planner_gain.py --out gain.jsonl      # about ten minutes

Populations of 60 clients; the ratio of upload to computation, the log-normal spread of devices and
links, and the correlation of data size with slowness vary; both sketches; three seeds a cell,
medians printed. Every planner is given its own best cohort size, and all the same bandwidth rule.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
from rich.progress import track

import fedpace as fp
from fedpace.core.rng import rng_for

CLIENTS = 60
RATIOS = (0.1, 0.3, 1.0, 3.0, 10.0)
SPREADS = (0.3, 1.0)
CORRELATIONS = (-0.7, 0.0, 0.7)
OTHERS = ("paper", "uniform", "weighted", "statistics")


def population(
    ratio: float, spread: float, correlation: float, sketch: str, seed: int
) -> tuple[fp.Clients, fp.System]:
    """Log-normal clients; `ratio` is a tenth's upload time over the mean computation."""
    rng = rng_for(seed, "population", 8)
    z, device, link, moment = rng.standard_normal((4, CLIENTS))
    mixed = correlation * z + np.sqrt(1 - correlation**2) * device
    clients = fp.Clients.from_columns(
        data_weight=np.exp(z),
        step_seconds=np.exp(spread * mixed),
        spectral_efficiency=2 * np.exp(-spread * (correlation * z + np.sqrt(
            1 - correlation**2) * link)),
        update_second_moment=np.exp(0.5 * moment),
    )  # fmt: skip
    fixed, per_rank, rank = 2e6, 3e5, 16
    demand = np.mean((fixed + rank * per_rank) / clients.spectral_efficiency) * CLIENTS / 10
    band = demand / (5 * clients.step_seconds.mean()) / ratio
    system = fp.System(
        bandwidth_hz=band, lora_rank=rank, local_steps=5, fixed_bits=fixed, bits_per_rank=per_rank,
        sketch=sketch, noise_ratio=1.0, overhead_seconds=0.1 * 5 * clients.step_seconds.mean(),
    )  # fmt: skip
    return clients, system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="append JSON lines here")
    arguments = parser.parse_args()
    cells = list(itertools.product(("residual", "scaled"), SPREADS, CORRELATIONS, RATIOS))
    rows = []
    for sketch, spread, correlation, ratio in track(cells, "cells"):
        gains: dict[str, list[float]] = {name: [] for name in OTHERS}
        for seed in range(arguments.seeds):
            clients, system = population(ratio, spread, correlation, sketch, seed)
            best = fp.plan(clients, system, "exact")
            for name in OTHERS:
                other = fp.plan(clients, system, name)
                gains[name].append(other.objective_seconds / best.objective_seconds)
        row = {"sketch": sketch, "spread": spread, "correlation": correlation, "ratio": ratio,
               **{name: float(np.median(g)) for name, g in gains.items()}}  # fmt: skip
        rows.append(row)
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print("| sketch | spread | correlation | upload/compute | " + " | ".join(OTHERS) + " |")
    print("|---|---|---|---|" + "---|" * len(OTHERS))
    for row in rows:
        gained = " | ".join(f"{row[name]:.2f}" for name in OTHERS)
        print(f"| {row['sketch']} | {row['spread']} | {row['correlation']} | {row['ratio']} "
              f"| {gained} |")  # fmt: skip
    for name in OTHERS:
        every = [row[name] for row in rows]
        print(f"{name}: median {np.median(every):.2f}, from {min(every):.2f} to {max(every):.2f}")


if __name__ == "__main__":
    main()
