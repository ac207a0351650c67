"""Where do overlapping rounds pay? Predicted gain over rounds that wait, and measured points.

    OMP_NUM_THREADS=1 python benchmarks/schedule_map.py --data DATA [--seeds 2] [--out PICTURE]

The cells are those of `benchmarks/suites/evidence.toml`, trec, balanced, with other values of
`[network] step_spread` and `upload_compute_ratio`. A field is the predicted time of the best rounds
that wait over that of the best overlapping ones, geometric mean over the seeds' populations. A
point is a setting of `benchmarks/results/evidence.jsonl`: time of "synchronous" over "overlapping"
as measured. Noise ratio 0.5 throughout; the runs had the tuned one. About five minutes on one core.
"""

import argparse
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from fedpace.bench.paired import geometric_mean
from fedpace.bench.paired_tables import WAITING, results_of
from fedpace.bench.results import read_results
from fedpace.bench.suite import load_suite
from fedpace.bench.training import Spec
from fedpace.core.profile import Clients, System
from fedpace.experiment.build import network_of
from fedpace.experiment.config import Experiment
from fedpace.experiment.prepare import Prepared, prepare
from fedpace.planning.planner import plan
from fedpace.reporting.style import styled
from fedpace.wireless.network import planning_clients
from fedpace.wireless.population import upload_compute_ratio

HERE = Path(__file__).parent
SPREADS = (0.1, 0.4, 0.7, 1.0, 1.3)
RATIOS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Of the key, which is for float32; int8 uploads make a quarter of it."""


def step_seconds(clients: Clients, system: System) -> np.ndarray:
    return clients.step_seconds + system.lora_rank * clients.step_seconds_per_rank


def gain(clients: Clients, system: System) -> float:
    """Predicted time of rounds that wait over that of rounds that overlap."""
    seconds = [
        plan(clients, system, "exact", schedule=schedule).objective_seconds
        for schedule in ("synchronous", "overlapping")
    ]
    return seconds[0] / seconds[1]


@styled
def drawn(table: np.ndarray, ratios: np.ndarray, points: list[tuple[float, float, float, str]]):
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    reach = max(2.0, float(table.max()), *(p[2] for p in points))
    norm = LogNorm(1 / reach, reach)
    made = Figure(figsize=(6.6, 4.6), layout="constrained")
    axes = made.subplots()
    edges = [np.log10(ratios), np.array(SPREADS)]
    mesh = axes.pcolormesh(*edges, table, cmap="RdBu", norm=norm, shading="nearest")
    axes.grid(visible=False)
    for (y, x), value in np.ndenumerate(table):
        at = edges[0][x], edges[1][y] - 0.1
        dark = abs(np.log(value)) > 0.6 * np.log(reach)
        axes.text(*at, f"{value:.2f}", ha="center", va="center", fontsize=8,
                  color="white" if dark else None)  # fmt: skip
    for i, (ratio, spread, measured, name) in enumerate(sorted(points)):
        axes.scatter(np.log10(ratio), spread, c=[measured], cmap="RdBu", norm=norm, s=180,
                     edgecolors="black", zorder=3)  # fmt: skip
        axes.annotate(
            f"{name}: {measured:.2f}",
            (np.log10(ratio), spread),
            (0, 11 + 14 * (i % 3)),
            ha="center",
            textcoords="offset points",
            fontsize=8,
            bbox={"facecolor": "white", "alpha": 0.8, "pad": 1, "edgecolor": "none"},
        )
    axes.set_xticks(edges[0], [f"{ratio:.2g}" for ratio in ratios])
    axes.set_yticks(SPREADS)
    axes.set_xlabel("mean upload over mean computation time")
    axes.set_ylabel("spread of the devices: standard deviation of ln(step time)")
    axes.set_title("rounds that wait over overlapping ones: fields predicted, points measured")
    bar = made.colorbar(mesh, ax=axes, ticks=[0.5, 1, 2])
    bar.ax.set_yticklabels(["0.5", "1", "2"])
    bar.ax.minorticks_off()
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs/img/schedule-map.png")
    arguments = parser.parse_args()
    suite = load_suite(HERE / "suites/evidence.toml", arguments.data)
    rates, sizes = suite.grid(WAITING)

    def told(network: str, seed: int) -> Experiment:
        spec = Spec("trec", WAITING, (network,), rates[0], sizes[1], seed, False)
        return spec.experiment(suite)

    @cache
    def prepared(seed: int) -> Prepared:
        return prepare(told("balanced", seed))

    def population(
        seed: int, network: str = "balanced", changes: Mapping[str, float] | None = None
    ) -> tuple[Clients, System]:
        experiment = told(network, seed)
        section = experiment.network.model_copy(update=changes or {})
        described = experiment.model_copy(update={"network": section})
        made = prepared(seed)
        found = network_of(described, made.site.work, made.setups[described.methods[0]])
        return planning_clients(found), found.system

    logs, log_ratios = np.zeros((len(SPREADS), len(RATIOS))), np.zeros(len(RATIOS))
    for seed in range(arguments.seeds):
        for (y, x), _ in np.ndenumerate(logs):
            changes = {"step_spread": SPREADS[y], "upload_compute_ratio": RATIOS[x]}
            place = population(seed, changes=changes)
            logs[y, x] += np.log(gain(*place)) / arguments.seeds
            log_ratios[x] += np.log(upload_compute_ratio(*place)) / logs.shape[0] / arguments.seeds
        print(f"seed {seed}: done", flush=True)
    table, ratios = np.exp(logs), np.exp(log_ratios)
    lines = read_results(HERE / "results/evidence.jsonl")
    points = []
    for (task, network), pairs in results_of(lines).over("overlapping", WAITING).items():
        seeds = range(arguments.seeds) if task == "trec" else ()
        places = [population(seed, network) for seed in seeds]
        if places:
            ratio = np.exp(np.mean([np.log(upload_compute_ratio(*each)) for each in places]))
            spread = np.mean([np.log(step_seconds(*each)).std() for each in places])
            points.append((float(ratio), float(spread), geometric_mean([pairs]).mean, network))
    print("ratios:", " ".join(f"{ratio:.3g}" for ratio in ratios))
    for spread, row in zip(SPREADS, table, strict=True):
        print(f"| {spread:g} |", " | ".join(f"{value:.2f}" for value in row), "|")
    for ratio, spread, measured, name in points:
        print(f"{name}: ratio {ratio:.2f}, spread {spread:.2f}, measured {measured:.2f}")
    drawn(table, ratios, points).savefig(arguments.out, dpi=120)


if __name__ == "__main__":
    main()
