"""How good is what `exact` finds? Against global and local solvers of SciPy, on random problems.

    python benchmarks/planner_quality.py                  # everything, about 20 minutes on one core
    python benchmarks/planner_quality.py --few 20 --many 2

Three questions, three tables:

1. N <= 8: against differential evolution in (q, k), ranks relaxed, polished by L-BFGS-B.
2. N = 100: against SLSQP and trust-constr in (q, k), ranks relaxed, from five starts each.
3. N = 100: what rounding the ranks costs.

All solvers see the same objective and the same analytic gradient.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
from scipy.optimize import Bounds, differential_evolution, minimize

from fedpace.core.profile import Clients, System
from fedpace.core.rng import rng_for
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.planning.exact import exact
from fedpace.planning.solver.objective import (
    Problem,
    evaluate,
    exact_law,
    log_objective,
    probability_limit,
    rank_limit,
)

Value = Callable[[np.ndarray], tuple[float, np.ndarray]]


def random_problem(seed: int, num_clients: int) -> Problem:
    """Draw a problem of any kind: both sketches, limits or none, mild to wild heterogeneity."""
    rng = rng_for(seed, "population", num_clients)
    spread, rank = rng.uniform(0.2, 1.5), int(rng.choice([4, 8, 16, 32]))

    def lognormal(scale: float = 1.0) -> np.ndarray:
        return np.exp(scale * spread * rng.standard_normal(num_clients))

    step, efficiency = lognormal(), 2 * lognormal(0.7)
    slope = step * rng.choice([0.0, 0.1]) / rank
    limits = {}
    if rng.random() < 0.3:
        limits["max_rank"] = np.where(rng.random(num_clients) < 0.3, max(1, rank // 4), rank)
    if rng.random() < 0.3:
        limits["availability"] = rng.uniform(0.3, 1, num_clients)
    steps, bits = 5, 1e6
    ratio = np.exp(rng.uniform(np.log(0.1), np.log(10)))
    upload = np.mean((rank * bits + 4e6) / efficiency) * max(1.0, num_clients / 10)
    band = upload / (steps * step.mean()) / ratio
    if rng.random() < 0.3:
        limits["max_bandwidth_hz"] = band * rng.uniform(0.2, 2, num_clients)
    clients = Clients.from_columns(
        data_weight=lognormal(), step_seconds=step, step_seconds_per_rank=slope,
        spectral_efficiency=efficiency, update_second_moment=lognormal(0.5), **limits,
    )  # fmt: skip
    system = System(
        bandwidth_hz=band, lora_rank=rank, local_steps=steps, bits_per_rank=bits, fixed_bits=4e6,
        sketch=(SCALED, RESIDUAL)[int(rng.choice(2))],
        noise_ratio=float(np.exp(rng.uniform(np.log(0.02), np.log(2)))),
        overhead_seconds=float(rng.choice([0.0, 0.5]) * step.mean()), allocation="equal-finish",
    )  # fmt: skip
    return Problem(clients, system)


def by_differential_evolution(problem: Problem, seed: int) -> float:
    """Log objective of the best (q, k), ranks relaxed, of a global search and a local polish."""
    value, bounds = relaxed(problem)
    found = differential_evolution(
        lambda z: value(z)[0], bounds, seed=seed, popsize=6, maxiter=60, polish=False, init="sobol"
    )
    end = minimize(value, found.x, jac=True, method="L-BFGS-B", bounds=bounds)
    return min(float(end.fun), float(found.fun))


def relaxed(problem: Problem) -> tuple[Value, Bounds]:
    """The objective with gradient in (log q, log k), and its box."""
    count, law = len(problem.clients), exact_law(problem)
    most = rank_limit(problem)

    def value(z: np.ndarray) -> tuple[float, np.ndarray]:
        z = np.clip(z, bounds.lb, bounds.ub)  # trust-constr steps out by rounding
        point = evaluate(problem, law, np.exp(z[:count]), np.exp(z[count:]))
        gradient = np.append(
            point.time_by_q - point.rounds_by_q, point.time_by_k - point.rounds_by_k
        )
        return point.log_objective, gradient

    bounds = Bounds(
        np.append(np.full(count, np.log(problem.q_min)), np.zeros(count)),
        np.append(np.log(probability_limit(problem, most)), np.log(most)),
        keep_feasible=True,
    )
    return value, bounds


def five_starts(problem: Problem) -> list[np.ndarray]:
    """Full, 10 % and 1 % participation at the largest ranks, 30 % at half; one at random."""
    count, most = len(problem.clients), rank_limit(problem)
    rng = rng_for(0, "planner", count)

    def at(q: float, part: float) -> np.ndarray:
        return np.log(np.append(np.full(count, q), np.maximum(1, part * most)))

    chance = np.append(rng.uniform(np.log(0.01), 0, count), rng.uniform(0, 1, count) * np.log(most))
    return [at(0.999, 1), at(0.1, 1), at(0.01, 1), at(0.3, 0.5), chance]


def by_local_solver(problem: Problem, method: str) -> float:
    """Best relaxed log objective of five starts."""
    value, bounds = relaxed(problem)
    options = {"maxiter": 100 if method == "SLSQP" else 150}
    ends = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trust-constr: delta_grad == 0.0
        for z in five_starts(problem):
            start = np.clip(z, bounds.lb, bounds.ub)
            end = minimize(value, start, jac=True, method=method, bounds=bounds, options=options)
            ends.append(value(end.x)[0])
    return min(ends)


def quantiles(gaps: list[float]) -> str:
    """Median, 95 % quantile, worst and best of relative gaps, as a table row."""
    row = np.percentile(100 * np.expm1(gaps), [50, 95, 100, 0])
    return " | ".join(f"{value:+.4f} %" for value in row)


def progress(label: str, done: int, of: int, begun: float) -> None:
    text = f"\r{label}: {done}/{of}, {time.perf_counter() - begun:.0f} s"
    print(text, end="" if done < of else "\n", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=200, help="problems with N <= 8")
    parser.add_argument("--many", type=int, default=10, help="problems with N = 100")
    arguments = parser.parse_args()
    header = "| ours over theirs | median | 95 % | worst | best |\n|---|---|---|---|---|"

    gaps, begun = [], time.perf_counter()
    for seed in range(arguments.few):
        problem = random_problem(seed, 1 + seed % 8)
        gaps.append(
            log_objective(problem, exact(problem)) - by_differential_evolution(problem, seed)
        )
        progress("N <= 8", seed + 1, arguments.few, begun)
    worse = sum(np.expm1(gap) > 0.01 for gap in gaps)
    better = sum(np.expm1(gap) < -1e-4 for gap in gaps)
    print(
        f"\nN <= 8, {arguments.few} problems: ours more than 1 % worse in {worse}, "
        f"more than 0.01 % better in {better}"
    )
    print(f"\n{header}\n| differential evolution + polish | {quantiles(gaps)} |")

    begun, rounding = time.perf_counter(), []
    against: dict[str, list[float]] = {"SLSQP": [], "trust-constr": []}
    for seed in range(arguments.many):
        problem = random_problem(seed, 100)
        ours = exact(problem)
        rounding.append(float(np.log1p(ours.statistics["rounding_cost"])))
        for method, row in against.items():
            row.append(log_objective(problem, ours) - by_local_solver(problem, method))
        progress("N = 100", seed + 1, arguments.many, begun)
    print(f"\nN = 100, {arguments.many} problems, whole ranks against relaxed ones\n\n{header}")
    for method, row in against.items():
        print(f"| {method}, best of five starts | {quantiles(row)} |")
    print(f"| our own relaxed optimum (cost of rounding) | {quantiles(rounding)} |")


if __name__ == "__main__":
    main()
