"""Overlapping rounds: the planner against differential evolution, on its own objective.

    OMP_NUM_THREADS=1 python benchmarks/overlap_planner.py [--problems 100] [--first 0]
        [--clients 2 8]

Random problems of 2 to 8 clients (those of `planner_quality.py`); differential evolution moves the
beat, every start probability and every rank (whole numbers, as a plan has) between the planner's
own limits, and beat and probabilities of the best are polished by Nelder and Mead.
On one core a problem of up to six clients takes about a minute, one of eight about five.
"""

import argparse

import numpy as np
from planner_quality import random_problem
from scipy.optimize import differential_evolution, minimize

from fedpace.planning.overlap.fleet import fleet_of
from fedpace.planning.overlap.law import queue_law
from fedpace.planning.overlap.objective import cost_of
from fedpace.planning.overlap.planner import overlapping
from fedpace.planning.solver.objective import Problem, rank_limit


def by_differential_evolution(problem: Problem, seed: int) -> float:
    """Return the least objective found, s."""
    fleet, most = fleet_of(problem.clients, problem.system), rank_limit(problem)
    count = len(fleet)
    alone = fleet.alone_seconds(most)
    shortest = max(fleet.overhead_seconds, float(alone.max()) / 8)
    low = np.r_[np.log(shortest), np.full(count, np.log(problem.q_min)), np.ones(count)]
    high = np.r_[np.log(max(float(alone.max()) * 1.5, shortest * 1.01)), np.zeros(count), most]

    whole = np.r_[np.zeros(count + 1, bool), np.ones(count, bool)]

    def value(z: np.ndarray) -> float:
        z = np.clip(z, low, high)
        q, k = np.exp(z[1 : count + 1]), z[count + 1 :]
        law = queue_law(
            q, fleet.ready_seconds(k), fleet.work_seconds(k), float(np.exp(z[0])),
            fleet.lag_seconds(k), fleet.availability,
        )  # fmt: skip
        return float(np.log(cost_of(fleet, law, k).objective_seconds))

    found = differential_evolution(
        value, list(zip(low, high + 1e-9, strict=True)), seed=seed, popsize=5, maxiter=40,
        polish=False, init="sobol", integrality=whole,
    )  # fmt: skip
    end = minimize(
        lambda free: value(np.r_[free, found.x[whole]]), found.x[~whole],
        method="Nelder-Mead", options={"maxfev": 300},
    )  # fmt: skip
    return float(np.exp(min(found.fun, end.fun)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--clients", type=int, nargs=2, default=(2, 8), help="least, most")
    arguments = parser.parse_args()
    ratios = []
    for index in range(arguments.first, arguments.first + arguments.problems):
        count = 2 + index % 7
        if not arguments.clients[0] <= count <= arguments.clients[1]:
            continue
        problem = random_problem(index, count)
        ours = overlapping(problem).cost.objective_seconds
        theirs = by_differential_evolution(problem, index)
        ratios.append(ours / theirs)
        print(f"{index:>3} N = {count}: {ours:.4g} s, evolution {theirs:.4g} s, ratio "
              f"{ratios[-1]:.4f}", flush=True)  # fmt: skip
    print(f"ours over evolution: median {np.median(ratios):.4f}, largest {max(ratios):.4f}; above "
          f"1.01 in {np.count_nonzero(np.array(ratios) > 1.01)} of {len(ratios)}")  # fmt: skip


if __name__ == "__main__":
    main()
