"""Overlapping rounds on federated quadratics: the planner's promise against what is seen.

    OMP_NUM_THREADS=1 python benchmarks/overlap_quadratics.py [--seeds 1] [--share 0.25 0.5]

Fifty clients of sum h_i (x_i - c_ni)^2 / 2 whose optima c_n differ, with noisy gradients; a server
with Adam. Populations, links and plans are the product's (int8 messages of the suites' first model,
noise ratio 0.5). Synchronous rounds follow the exact plan, overlapping ones a plan for a beat that
is the given share of a mean round; each at the best of a grid of rates. Ages are drawn as the
queue's law has them. `batch` is the share of a client's second moment that is noise of its batches;
the rest is that clients differ. About ten seconds a cell of an idle core.
"""

import argparse
from dataclasses import replace

import numpy as np

from fedpace.core.profile import Clients, Floats, System
from fedpace.core.sketch import sketch_named
from fedpace.planning.overlap.planner import overlapping
from fedpace.planning.overlap.schedule import OverlappingSchedule
from fedpace.planning.planner import plan
from fedpace.planning.solver.objective import Problem
from fedpace.wireless.population import draw_clients, scenario_named

CELLS = {
    "compute-bound": {"upload_compute_ratio": 0.3},
    "balanced": {},
    "balanced-correlated": {"size_slowness_correlation": 0.7},
    "link-bound": {"upload_compute_ratio": 3.0},
}
"""Changes of the balanced cell."""
CURVATURE = np.geomspace(0.1, 1.0, 12)
RATES = np.geomspace(0.04, 0.64, 9)
CASES = ((0.1, 20.0), (0.6, 10.0))
"""Share of batch noise, and by how much f shall fall."""
RUNS, NOISE_RATIO = 12, 0.5


def cell(name: str, seed: int) -> tuple[Clients, System]:
    """Return fifty clients of log-normal sizes, and what they share."""
    scenario = replace(scenario_named("cell-balanced"), **CELLS[name])
    size = np.exp(np.random.default_rng(seed).standard_normal(50))
    # Two layers of MiniLM: queries and values at one rank, and the head.
    per_rank, fixed = 4 * 768.0, 2310.0
    system = System(
        bandwidth_hz=5e6, lora_rank=16, local_steps=5, overhead_seconds=0.2,
        sketch=sketch_named("residual"), allocation="work-conserving", noise_ratio=NOISE_RATIO,
        bits_per_rank=32 * per_rank, fixed_bits=32 * fixed,
    )  # fmt: skip
    clients = draw_clients(scenario, size / size.sum(), seed, system)
    return clients, replace(system, bits_per_rank=8 * per_rank, fixed_bits=8 * fixed)


def beats_needed(
    weight: Floats, q: Floats, age: Floats, rate: float, batch: float, fall: float, most: int
) -> float:
    """Return beats until the mean of f over the runs has fallen; inf if it does not in `most`."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random((RUNS, len(CURVATURE))) < 0.5, -1.0, 1.0)
    start, first = float(np.sum(CURVATURE**2)), float(np.sum(CURVATURE * x**2))
    # rho = sum a^2 Gamma / (||u||^2 - sum a^2 ||m||^2) at the start, as planners have it.
    signal = start / (1 + NOISE_RATIO * (1 - batch))
    moment = NOISE_RATIO * signal / float(np.sum(weight**2))
    optimum = rng.standard_normal((RUNS, len(weight), len(CURVATURE)))
    optimum -= np.einsum("n,rnd->rd", weight, optimum)[:, None]
    optimum *= np.sqrt(max((1 - batch) * moment - start, 0.0) / start)
    spread = np.sqrt(batch * moment / len(CURVATURE))
    counts_at, took = np.full((2, RUNS, len(weight)), -1.0)
    held, mean, square = np.zeros_like(optimum), np.zeros_like(x), np.zeros_like(x)
    before = 0.0
    for beat in range(most):
        starts = (counts_at < beat) & (rng.random(counts_at.shape) < q)
        late = np.floor(age) + (rng.random(counts_at.shape) < age % 1)
        gradient = CURVATURE * (x[:, None] - optimum) + spread * rng.standard_normal(held.shape)
        held = np.where(starts[..., None], gradient, held)
        counts_at, took = np.where(starts, beat + late - 1, counts_at), np.where(starts, late, took)
        account = weight * (1 / q + took - 1) * (counts_at == beat)
        update = np.einsum("rn,rnd->rd", account, held)
        mean, square = 0.9 * mean + 0.1 * update, 0.99 * square + 0.01 * update**2
        count = beat + 1
        scale = np.sqrt(square / (1 - 0.99**count)) + 1e-9
        x = x - rate * mean / (1 - 0.9**count) / scale
        after = np.log(np.sum(CURVATURE * x**2) / first)
        if after <= -np.log(fall):
            return float(beat + (before + np.log(fall)) / (before - after))
        before = after
    return np.inf


def best(weight: Floats, q: Floats, age: Floats, batch: float, fall: float) -> tuple[float, float]:
    """Return the least beats over the rates, and the rate."""
    return min((beats_needed(weight, q, age, r, batch, fall, 80), r) for r in RATES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--share", type=float, nargs="+", default=[0.25, 0.5])
    arguments = parser.parse_args()
    print(
        "cell, seed, batch: rounds | beat over round, delay, noise (tuned): predicted, seen, rate"
    )
    for seed in range(arguments.seeds):
        for name in CELLS:
            clients, system = cell(name, seed)
            rounds = plan(clients, system)
            seconds = rounds.round_seconds.mean
            q, problem = rounds.sampling_probability, Problem(clients, system)
            made: dict[float, OverlappingSchedule] = {
                share: overlapping(problem, share * seconds) for share in arguments.share
            }
            for batch, fall in CASES:
                needed, rate = best(clients.data_weight, q, np.ones(len(q)), batch, fall)
                told = f"{name}, {seed}, {batch:g}: {needed:.1f}"
                for share, beats in made.items():
                    promised = rounds.objective_seconds / beats.cost.objective_seconds
                    age = beats.law.age_beats
                    count, own = best(
                        clients.data_weight, beats.start_probability, age, batch, fall
                    )
                    told += (
                        f" | {share:g}, {beats.cost.delay_beats:.2f}, {beats.cost.noise:.2f}: "
                        f"{promised:.2f}, {needed / (share * count):.2f}, {own / rate:.2f}"
                    )
                print(told, flush=True)


if __name__ == "__main__":
    main()
