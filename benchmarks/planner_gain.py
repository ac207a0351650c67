"""How much does planning gain, and where? `exact` against other planners over a grid.

    OMP_NUM_THREADS=1 python benchmarks/planner_gain.py --out gain.jsonl      # about ten minutes
    python benchmarks/planner_gain.py --read gain.jsonl --plot gain-regimes.png

Populations of 60 clients; the ratio of upload to computation, the log-normal spread of devices and
links, and the correlation of data size with slowness vary; both sketches; three seeds a cell,
medians printed. Every planner is given its own best cohort size, and all the same bandwidth rule.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

import fedpace as fp
from fedpace.core.rng import rng_for
from fedpace.core.sketch import RESIDUAL, SCALED, Sketch
from fedpace.planning.exact import exact
from fedpace.planning.planner import PLANNERS
from fedpace.planning.solver.objective import Problem, log_objective

CLIENTS = 60
RATIOS = (0.1, 0.3, 1.0, 3.0, 10.0)
SPREADS = (0.3, 0.6, 1.0, 1.5)
CORRELATIONS = (-0.7, 0.0, 0.7)
SKETCHES = (RESIDUAL, SCALED)
OTHERS = ("paper", "uniform", "weighted", "statistics")


def population(
    ratio: float, spread: float, correlation: float, sketch: Sketch, seed: int
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
        allocation="equal-finish",
    )  # fmt: skip
    return clients, system


def gains(clients: fp.Clients, system: fp.System) -> dict[str, float]:
    """Objective of the other planners over that of `exact`."""
    problem = Problem(clients, system)
    best = log_objective(problem, exact(problem))
    return {
        name: float(np.exp(log_objective(problem, PLANNERS[name](problem, None)) - best))
        for name in OTHERS
    }


def measure(seeds: int, out: Path | None) -> list[dict[str, Any]]:
    """Return one row a cell: where it is, and the median gain over each of the others."""
    cells = list(itertools.product(SKETCHES, SPREADS, CORRELATIONS, RATIOS))
    rows = []
    for sketch, spread, correlation, ratio in track(cells, "cells"):
        found = [gains(*population(ratio, spread, correlation, sketch, s)) for s in range(seeds)]
        row = {"sketch": sketch.name, "spread": spread, "correlation": correlation, "ratio": ratio,
               **{name: float(np.median([g[name] for g in found])) for name in OTHERS}}  # fmt: skip
        rows.append(row)
        if out:
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Heat maps of the gain: a row for each planner, a column for each correlation."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    others = OTHERS[1:] + OTHERS[:1]
    figure = Figure(figsize=(8.4, 8.6), layout="constrained")
    panels = figure.subplots(len(others), len(CORRELATIONS), sharex=True, sharey=True)
    norm = LogNorm(1, max(4.0, max(row[name] for row in rows for name in OTHERS)))
    for (i, name), (j, correlation) in itertools.product(
        enumerate(others), enumerate(CORRELATIONS)
    ):
        value = np.full((len(SPREADS), len(RATIOS)), np.nan)
        for row in rows:
            if row["sketch"] == SKETCHES[0].name and row["correlation"] == correlation:
                value[SPREADS.index(row["spread"]), RATIOS.index(row["ratio"])] = row[name]
        axes = panels[i, j]
        image = axes.imshow(value, norm=norm, cmap="YlGnBu", origin="lower", aspect="auto")
        for (y, x), gain in np.ndenumerate(value):
            dark = norm(gain) > 0.55
            axes.text(x, y, f"{gain:.2f}", ha="center", va="center", fontsize=8,
                      color="white" if dark else "#333333")  # fmt: skip
        axes.tick_params(length=0, labelsize=8)
        axes.set_xticks(range(len(RATIOS)), [f"{r:g}" for r in RATIOS])
        axes.set_yticks(range(len(SPREADS)), [f"{s:g}" for s in SPREADS])
        axes.spines[:].set_visible(False)
        if i == 0:
            who = {-0.7: "much data on fast devices", 0.0: "data and speed independent",
                   0.7: "much data on slow devices"}  # fmt: skip
            axes.set_title(who[correlation], fontsize=9)
        if j == 0:
            axes.set_ylabel(f"exact over {name}\n\nspread", fontsize=9)
        if i == len(others) - 1:
            axes.set_xlabel("upload / compute", fontsize=9)
    bar = figure.colorbar(image, ax=panels, aspect=50, pad=0.02, ticks=[1, 1.5, 2, 3, 5, 8, 13])
    bar.ax.set_yticklabels(["1", "1.5", "2", "3", "5", "8", "13"], fontsize=8)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    bar.set_label("predicted time of the other planner over that of exact", fontsize=9)
    figure.savefig(path, dpi=95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="append JSON lines here")
    parser.add_argument("--read", type=Path, help="show these JSON lines, and measure nothing")
    parser.add_argument("--plot", type=Path, help="draw the gain with the first sketch, as PNG")
    arguments = parser.parse_args()
    if arguments.read:
        rows = [json.loads(line) for line in arguments.read.read_text().splitlines()]
    else:
        rows = measure(arguments.seeds, arguments.out)
    if arguments.plot:
        draw(rows, arguments.plot)
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
