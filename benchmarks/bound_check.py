"""The convergence bound against federated least squares with known constants.

    OMP_NUM_THREADS=1 python benchmarks/bound_check.py [--seeds 3] [--plans 24] [--rows FILE.csv]

Prints the three tables of docs/theory.md, section 8: measured over bound for every tried
(q, k, H, eta), the rank correlation of bound and measurement over random plans, and what the
scaled sketch does to the objective. "Measured" is the exact expectation over participation,
sketches and noise (`quadratics.expected_gradients`); the first table also compares it with runs
of the algorithm itself. Runs for about four minutes on one core.
"""

import argparse
import csv
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from quadratics import (
    Federation,
    Strategy,
    constants,
    expected_gradients,
    gradient,
    least_squares,
    simulate,
)
from scipy.stats import spearmanr

from fedpace.core.rng import rng_for
from fedpace.core.sketch import RESIDUAL, SCALED, Sketch
from fedpace.planning.bound import Bound, convergence_bound

RANK, CLIENTS = 6, 6
SKETCHES = (SCALED, RESIDUAL)
BOLDER = np.geomspace(1, 1024, 41)  # multiples of the bound's best rate that are tried
Row = dict[str, Any]


def bound_of(fed: Federation, how: Strategy, rounds: int) -> Bound:
    """Evaluate the bound with the federation's own constants."""
    return convergence_bound(
        how.sampling_probability,
        how.sketch_rank,
        fed.data_weight,
        constants(fed, how.sketch_rank, how.sketch),
        lora_rank=len(fed.start),
        local_steps=how.local_steps,
        learning_rate=how.learning_rate,
        server_step=how.server_step,
        rounds=rounds,
        sketch=how.sketch,
    )


def tried_plans(seed: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return equal plans on a grid and two mixed ones: (name, q, k)."""
    grid = itertools.product((1.0, 0.5, 0.2), (6, 3, 2, 1))
    plans = [(f"q={q:g} k={k}", np.full(CLIENTS, q), np.full(CLIENTS, k)) for q, k in grid]
    return plans + [(f"mixed {i}", *random_plan(seed, i)) for i in range(2)]


def random_plan(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw q log-uniform in [0.1, 1] and k uniform in 1..r for every client."""
    rng = rng_for(seed, "simulation", 2, index)
    return np.exp(rng.uniform(np.log(0.1), 0, CLIENTS)), rng.integers(1, RANK + 1, CLIENTS)


def under_the_bound(seeds: int, rounds: int = 1000) -> list[Row]:
    """Measure every (federation, sketch, H, server step, plan, eta) inside the conditions."""
    rows = []
    settings = itertools.product(range(seeds), (0.05, 0.3), SKETCHES, (1, 2, 5, 10), (1.0, 2.0))
    for seed, skew, sketch, steps, server_step in settings:
        fed = least_squares(seed, clients=CLIENTS, rank=RANK, feature_skew=skew)
        for name, q, k in tried_plans(seed):
            how = Strategy(q, k, steps, 1e-9, server_step, sketch)
            most = bound_of(fed, how, rounds).max_learning_rate
            for share in (0.9, 0.5, 0.2, 0.05):
                how = replace(how, learning_rate=share * most)
                bound = bound_of(fed, how, rounds)
                measured = float(expected_gradients(fed, how, rounds).mean())
                rows.append(
                    {"seed": seed, "feature_skew": skew, "sketch": sketch.name,
                     "local_steps": steps,
                     "server_step": server_step, "plan": name, "share_of_max_rate": share,
                     "learning_rate": how.learning_rate, "absorbed": bound.absorbed,
                     "measured": measured, "bound": bound.total, "ratio": measured / bound.total}
                )  # fmt: skip
    return rows


def monte_carlo_deviation(replicas: int = 2000, rounds: int = 40) -> tuple[int, float]:
    """Return how many cases were simulated, and the largest |simulated - exact| in its errors."""
    fed, scores = least_squares(0, clients=CLIENTS, rank=RANK), []
    for case in itertools.product(SKETCHES, (1, 5), tried_plans(0)):
        sketch, steps, (_, q, k) = case
        how = Strategy(q, k, steps, 1e-9, 1.0, sketch)
        how = replace(how, learning_rate=0.5 * bound_of(fed, how, rounds).max_learning_rate)
        runs = simulate(fed, how, rounds, seed=1, replicas=replicas).mean(axis=1)
        error = runs.std(ddof=1) / np.sqrt(replicas)
        scores.append(abs(runs.mean() - expected_gradients(fed, how, rounds).mean()) / error)
    return len(scores), float(max(scores))


def rounds_until(fed: Federation, how: Strategy, accuracy: float, most: int) -> float:
    """Return the first R whose mean squared gradient is at most `accuracy`; inf above `most`."""
    with np.errstate(over="ignore", invalid="ignore"):  # a diverging rate is a legitimate answer
        mean = np.cumsum(expected_gradients(fed, how, most)) / np.arange(1, most + 1)
    reached = np.flatnonzero(mean <= accuracy)
    return float(reached[0] + 1) if len(reached) else np.inf


def rank_correlation(seed: int, sketch: Sketch, steps: int, plans: int, fixed_rank: bool) -> Row:
    """Order random plans by the bound and by measurement; Spearman's coefficients."""
    fed = least_squares(seed, clients=CLIENTS, rank=RANK)
    hows, bounds = [], []
    for index in range(plans):
        q, k = random_plan(seed, index)
        k = np.full_like(k, 3) if fixed_rank else k
        hows.append(Strategy(q, k, steps, 1e-9, 1.0, sketch))
        bounds.append(bound_of(fed, hows[-1], 1))
    row: Row = {"seed": seed, "sketch": sketch.name, "k": "3" if fixed_rank else "1-6", "H": steps}

    common = 0.5 * min(bound.max_learning_rate for bound in bounds)
    for name, length in (("short run", 4), ("long run", 400)):
        same, rounds = [replace(how, learning_rate=common) for how in hows], length / common / steps
        bound = [bound_of(fed, how, int(rounds)).total for how in same]
        measured = [expected_gradients(fed, how, int(rounds)).mean() for how in same]
        row[name] = spearmanr(bound, measured).statistic

    plain = gradient(fed, np.full(CLIENTS, RANK), sketch)
    accuracy = 0.05 * float(np.sum((plain @ np.append(fed.start, 1.0)) ** 2))
    own, tuned, promised, bolder = [], [], [], []
    for how, bound in zip(hows, bounds, strict=True):
        best = bound.rounds_to(accuracy)
        promised.append(best.rounds)
        needed = [
            rounds_until(
                fed, replace(how, learning_rate=times * best.learning_rate), accuracy, best.rounds
            )
            for times in BOLDER
        ]
        own.append(needed[0])
        tuned.append(min(needed))
        bolder.append(BOLDER[int(np.argmin(needed))])
    form = [planning_form(fed, how, accuracy) for how in hows]
    return row | {
        "own step": spearmanr(promised, own).statistic,
        "tuned step": spearmanr(promised, tuned).statistic,
        "form": spearmanr(form, tuned).statistic,
        "promised": f"{min(promised)}-{max(promised)}",
        "needed, own": f"{min(own):.0f}-{max(own):.0f}",
        "needed, tuned": f"{min(tuned):.0f}-{max(tuned):.0f}",
        "rate, tuned/own": f"{min(bolder):.0f}-{max(bolder):.0f}",
    }


def planning_form(fed: Federation, how: Strategy, accuracy: float) -> float:
    """Evaluate (31) of docs/theory.md from full-rank constants alone, as a planner would."""
    full = constants(fed, np.full(CLIENTS, RANK), RESIDUAL)
    kappa = RANK / how.sketch_rank
    second = 2 * (1 + full.dissimilarity) * accuracy + 2 * full.heterogeneity**2
    second += full.gradient_noise**2 / how.local_steps
    volume = np.sum(fed.data_weight**2 * kappa * second / how.sampling_probability)
    mean_kappa = float(fed.data_weight @ kappa) if how.sketch == SCALED else 1.0
    young = 1 if how.local_steps == 1 else 2
    return float(mean_kappa * (accuracy + 2 * young * volume))


def sketch_bias(seeds: int) -> list[Row]:
    """Return by how much the scaled sketch's minimiser misses the unsketched one."""
    rows = []
    for k in range(RANK, 0, -1):
        excess = []
        for seed in range(seeds):
            fed = least_squares(seed, clients=CLIENTS, rank=RANK)
            plain = gradient(fed, np.full(CLIENTS, RANK), SCALED)
            sketched = gradient(fed, np.full(CLIENTS, k), SCALED)
            best, found = (-np.linalg.solve(g[:, :-1], g[:, -1]) for g in (plain, sketched))
            loss = [(x - best) @ plain[:, :-1] @ (x - best) / 2 for x in (found, fed.start)]
            excess.append(loss[0] / loss[1])
        rows.append({"k": k, "excess loss, share of the initial gap": np.mean(excess)})
    return rows


def table(rows: Sequence[Row]) -> str:
    """Format rows as a Markdown table."""
    lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0])]
    for row in rows:
        cells = (f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values())
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def summary(rows: Sequence[Row]) -> list[Row]:
    """Condense the cases by sketch and H."""
    result = []
    for sketch, steps in itertools.product(SKETCHES, (1, 2, 5, 10)):
        ratio = np.array(
            [r["ratio"] for r in rows if r["sketch"] == sketch.name and r["local_steps"] == steps]
        )
        result.append(
            {"sketch": sketch.name, "H": steps, "cases": len(ratio), "largest ratio": ratio.max(),
             "median": float(np.median(ratio)), "smallest": ratio.min(),
             "over 1": int((ratio > 1).sum())}
        )  # fmt: skip
    return result


def main() -> None:
    """Run the check."""
    parser = argparse.ArgumentParser(description="The convergence bound against least squares.")
    parser.add_argument("--seeds", type=int, default=3, help="federations of each kind")
    parser.add_argument("--plans", type=int, default=24, help="random plans to be ordered")
    parser.add_argument("--rows", type=Path, help="write every case to this CSV file")
    options = parser.parse_args()

    rows = under_the_bound(options.seeds)
    if options.rows:
        with options.rows.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    print("Measured over bound\n\n" + table(summary(rows)))
    cases, deviation = monte_carlo_deviation()
    print(f"\nSimulated against exact: {cases} cases, at most {deviation:.1f} standard errors off")
    print("\nRank correlation over random plans\n")
    settings = itertools.product(SKETCHES, (False, True), (1, 5), range(options.seeds))
    print(table([
        rank_correlation(seed, sketch, steps, options.plans, fixed)
        for sketch, fixed, steps, seed in settings
    ]))  # fmt: skip
    print("\nBias of the scaled sketch\n\n" + table(sketch_bias(options.seeds)))


if __name__ == "__main__":
    main()
