"""The noise ratio that recorded runs imply: rounds to the target at different cohort sizes.

    python benchmarks/cohort_rounds.py [benchmarks/results/full.jsonl]

Uniform sampling with server Adam was run at several cohorts q of a task, at one rate and on the
same seeds. Where all reached the target, the rounds should be in proportion to 1 + rho / q
(docs/theory.md, section 6); rho is fitted to the logarithms, each task with a level of its own.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

FULL = Path(__file__).parent / "results" / "full.jsonl"


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FULL
    rounds: dict[tuple[str, float], dict[float, dict[int, int]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for text in path.read_text("utf-8").splitlines():
        line = json.loads(text)
        if line["method"] == "uniform" and line["seconds"] is not None and "cohort" in line["size"]:
            key = line["task"], line["rate"]["server_learning_rate"]
            rounds[key][line["size"]["cohort"]][line["seed"]] = line["rounds"]
    cohorts, levels, logs = [], [], []
    print("task, server rate: cohort -> rounds (geometric mean over seeds that all reached)")
    for (task, rate), by_cohort in rounds.items():
        seeds = set.intersection(*(set(runs) for runs in by_cohort.values()))
        if len(by_cohort) < 2 or not seeds:
            continue
        mean = {q: np.exp(np.mean([np.log(runs[s]) for s in seeds]))
                for q, runs in sorted(by_cohort.items())}  # fmt: skip
        told = ", ".join(f"{q:g} -> {value:.1f}" for q, value in mean.items())
        print(f"{task}, {rate:g}: {told}  ({len(seeds)} seeds)")
        level = len(set(levels))
        for q, value in mean.items():
            cohorts.append(q)
            levels.append(level)
            logs.append(np.log(value))
    q, level, log = np.array(cohorts), np.array(levels), np.array(logs)

    def misfit(rho: float) -> float:
        left = log - np.log1p(rho / q)
        means = np.array([left[level == each].mean() for each in np.unique(level)])
        return float(np.sqrt(np.mean((left - means[level]) ** 2)))

    grid = np.geomspace(0.02, 20, 200)
    best = min(grid, key=misfit)
    print(f"rho = {best:.2f}, root mean square misfit of the logarithms {misfit(best):.2f}")
    for rho in (0.15, 0.5, 1.5, 5.0):
        print(f"  at rho = {rho:g}: {misfit(rho):.2f}")


if __name__ == "__main__":
    main()
