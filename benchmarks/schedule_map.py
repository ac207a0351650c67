"""Where do overlapping rounds pay? Predicted gain over rounds that wait, and measured points.

    OMP_NUM_THREADS=1 python benchmarks/schedule_map.py --data DATA [--seeds 3] [--out PICTURE]

The devices are those of `benchmarks/suites/evidence.toml`, trec, balanced; their computing times
are stretched about their middle to a spread, and scaled to a ratio of upload to computing. A field
is the predicted time of the best rounds that wait over that of the best overlapping ones, geometric
mean over the seeds' populations. A point is a setting of `benchmarks/results/evidence.jsonl`: time
of "synchronous" over "overlapping" as measured. About ten minutes on one core.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedpace.bench.paired import geometric_mean
from fedpace.bench.paired_tables import WAITING, results_of
from fedpace.bench.results import read_results
from fedpace.bench.suite import load_suite
from fedpace.bench.training import Spec
from fedpace.core.profile import Clients, System
from fedpace.experiment.build import network_of
from fedpace.experiment.network import planning_clients
from fedpace.experiment.prepare import prepare
from fedpace.planning.planner import plan
from fedpace.reporting.style import styled
from fedpace.wireless.population import upload_compute_ratio

HERE = Path(__file__).parent
SPREADS = (0.1, 0.4, 0.7, 1.0, 1.3)
RATIOS = (0.1, 0.3, 1.0, 3.0, 10.0)


def step_seconds(clients: Clients, system: System) -> np.ndarray:
    return clients.step_seconds + system.lora_rank * clients.step_seconds_per_rank


def stretched(clients: Clients, system: System, spread: float, ratio: float) -> Clients:
    """Give the devices this spread of ln(step time) and this ratio of upload to computing."""
    step = np.log(step_seconds(clients, system))
    factor = np.exp((step - step.mean()) * (spread / step.std() - 1))

    def scaled(by: np.ndarray) -> Clients:
        return replace(
            clients, step_seconds=clients.step_seconds * by,
            step_seconds_per_rank=clients.step_seconds_per_rank * by,
        )  # fmt: skip

    return scaled(factor * upload_compute_ratio(scaled(factor), system) / ratio)


def gain(clients: Clients, system: System) -> float:
    """Predicted time of rounds that wait over that of rounds that overlap."""
    seconds = [
        plan(clients, system, "exact", schedule=schedule).objective_seconds
        for schedule in ("synchronous", "overlapping")
    ]
    return seconds[0] / seconds[1]


@styled
def drawn(table: np.ndarray, points: list[tuple[float, float, float, str]]):
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    reach = max(2.0, float(table.max()), *(p[2] for p in points))
    norm = LogNorm(1 / reach, reach)
    made = Figure(figsize=(6.6, 4.6), layout="constrained")
    axes = made.subplots()
    edges = [np.log10(np.array(RATIOS)), np.array(SPREADS)]
    mesh = axes.pcolormesh(*edges, table, cmap="RdBu", norm=norm, shading="nearest")
    axes.grid(visible=False)
    for (y, x), value in np.ndenumerate(table):
        at = edges[0][x], edges[1][y] - 0.1
        axes.text(*at, f"{value:.2f}", ha="center", va="center", fontsize=8)
    for ratio, spread, measured, name in points:
        axes.scatter(np.log10(ratio), spread, c=[measured], cmap="RdBu", norm=norm, s=180,
                     edgecolors="black", zorder=3)  # fmt: skip
        axes.annotate(f"{name}: {measured:.2f}", (np.log10(ratio), spread), (0, 11), ha="center",
                      textcoords="offset points", fontsize=8)  # fmt: skip
    axes.set_xticks(edges[0], [f"{r:g}" for r in RATIOS])
    axes.set_yticks(SPREADS)
    axes.set_xlabel("mean upload over mean computation time")
    axes.set_ylabel("spread of the devices: standard deviation of ln(step time)")
    axes.set_title("rounds that wait over overlapping ones: fields predicted, points measured")
    made.colorbar(mesh, ax=axes)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs/img/schedule-map.png")
    arguments = parser.parse_args()
    suite = load_suite(HERE / "suites/evidence.toml", arguments.data)
    rates, sizes = suite.grid(WAITING)

    def population(network: str, seed: int) -> tuple[Clients, System]:
        spec = Spec("trec", WAITING, (network,), rates[0], sizes[1], seed, False)
        prepared = prepare(spec.experiment(suite))
        setup = prepared.setups[prepared.experiment.methods[0]]
        network_ = network_of(prepared.experiment, prepared.site.work, setup)
        return planning_clients(network_), network_.system

    logs = np.zeros((len(SPREADS), len(RATIOS)))
    for seed in range(arguments.seeds):
        clients, system = population("balanced", seed)
        for (y, x), _ in np.ndenumerate(logs):
            changed = stretched(clients, system, SPREADS[y], RATIOS[x])
            logs[y, x] += np.log(gain(changed, system)) / arguments.seeds
        print(f"seed {seed}: done", flush=True)
    table = np.exp(logs)
    lines = read_results(HERE / "results/evidence.jsonl")
    points = []
    for (task, network), pairs in results_of(lines).over("overlapping", WAITING).items():
        places = [population(network, seed) for seed in range(arguments.seeds)] * (task == "trec")
        if places:
            ratio = np.exp(np.mean([np.log(upload_compute_ratio(*each)) for each in places]))
            spread = np.mean([np.log(step_seconds(*each)).std() for each in places])
            points.append((float(ratio), float(spread), geometric_mean([pairs]).mean, network))
    for spread, row in zip(SPREADS, table, strict=True):
        print(f"| {spread:g} |", " | ".join(f"{value:.2f}" for value in row), "|")
    for ratio, spread, measured, name in points:
        print(f"{name}: ratio {ratio:.2f}, spread {spread:.2f}, measured {measured:.2f}")
    drawn(table, points).savefig(arguments.out, dpi=120)


if __name__ == "__main__":
    main()
