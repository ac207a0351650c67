"""Measured wall-clock time to the target, on a network that the kernel shapes.

    sudo nice -n -20 python benchmarks/testbed_headline.py --seeds 0 1 2

Linux and root. `benchmarks/testbed.toml` in three regimes and with several seeds, each of which is
another population, other parts of the data and other draws: our method on a band that never idles,
uniform sampling on the same, and uniform sampling with equal shares. Every method waits at most
[training] rounds; learning rates are the file's for all. A pair of regime and seed takes ten
minutes. Runs that are in --folder are not made again, and one that was cut off is resumed; what
comes of a run is a line of --results. At the end, and with --show alone, the tables are printed.

    sudo nice -n -20 python benchmarks/testbed_headline.py --law

plays fifty rounds in two regimes under equal finish, whatever the loss, and holds every round and
its law against the kernel. `--overlapping` runs ours with rounds that overlap.

What is predicted, of a ratio: "same rounds", the virtual clock with the participants and bytes that
came; "plan", what the planners say before the first round: relative rounds times mean round.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fedpace.reporting.measured import errors, measured_times
from fedpace.run_folder.measured import read_times
from fedpace.run_folder.reader import read_run

HERE = Path(__file__).parent
BANDWIDTH_HZ = {"cell-link-bound": 4e5, "cell-balanced": 4e5, "cell-compute-bound": 8e5}
"""So that a round takes 4 to 8 s by the plan."""
OURS, IDLE, SHARE = ("adaptive", "work-conserving"), ("uniform", "work-conserving"), (
    "uniform", "equal-share",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """One run on the testbed."""

    scenario: str
    seed: int
    rule: str
    methods: tuple[str, ...]
    rounds: int | None = None
    """So many, without a target; None: until the file's target."""
    schedule: str = "synchronous"

    @property
    def name(self) -> str:
        law = "" if self.rounds is None else f"-{self.rounds}-rounds"
        law += "" if self.schedule == "synchronous" else f"-{self.schedule}"
        return f"{self.scenario}-{self.rule}-{self.seed}{law}"

    def command(self, folder: Path) -> list[str]:
        out = folder / self.name
        start = [sys.executable, "-m", "fedpace", "testbed"]
        if (out / "experiment.toml").exists():
            return [*start, "--resume", str(out)]
        sets = {"network.scenario": self.scenario, "network.allocation": self.rule,
                "network.bandwidth_hz": BANDWIDTH_HZ[self.scenario], "seed": self.seed,
                "training.schedule": self.schedule}  # fmt: skip
        if self.rounds is not None:
            # A loss that is not reached: then all rounds are played.
            sets |= {"training.rounds": self.rounds, "training.target": "loss<=0.001",
                     "training.eval_every": 25}  # fmt: skip
        start += [str(HERE / "testbed.toml"), "--out", str(out)]
        start += [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
        return start + [word for method in self.methods for word in ("--method", method)]


def wanted(
    seeds: list[int], scenarios: list[str], law: bool, overlapping: bool
) -> Iterator[Wanted]:
    """Yield the runs, seed by seed."""
    for seed in seeds:
        for scenario in scenarios:
            if overlapping:
                yield Wanted(
                    scenario, seed, "work-conserving", ("adaptive",), schedule="overlapping"
                )
            elif law:
                yield Wanted(scenario, seed, "equal-finish", ("adaptive",), rounds=50)
            else:
                yield Wanted(scenario, seed, "work-conserving", ("adaptive", "uniform"))
                yield Wanted(scenario, seed, "equal-share", ("uniform",))


def lines(run: Wanted, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a line for each method of a finished run."""
    found, times = read_run(folder / run.name), read_times(folder / run.name)
    for method in run.methods:
        told, plan = found.summary["methods"][method], found.plans[method][0][1]
        mine, first = [t for t in times if t.method == method], found.records[method][0]
        line = {
            "scenario": run.scenario, "seed": run.seed, "rule": run.rule, "method": method,
            "wanted_rounds": run.rounds, "schedule": run.schedule,
            "seconds": told["time_to_target_seconds"], "rounds": told["rounds"],
            "first_task_seconds": first.clock_seconds - first.round_seconds,
            "plan_seconds": plan.objective_seconds,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        if not mine:  # beats are as long as they are planned
            yield line
            continue
        empty = len(found.records[method]) - len(mine)
        off = {key: value for key, value in errors(mine).items() if key != "rounds"}
        law, overhead = plan.round_seconds, mine[0].predicted_seconds - mine[0].transfer_seconds
        yield {
            **line,
            "same_rounds_seconds": sum(t.predicted_seconds for t in mine) + empty * overhead,
            "rounds_seconds": sum(t.measured_seconds for t in mine),
            "law_mean": law.mean, "law_p95": law.p95,
            "overhead": float(np.median([t.measured_seconds - t.transfer_seconds for t in mine])),
            **off,
        }  # fmt: skip


def known(results: Path) -> list[dict[str, Any]]:
    """Return the lines that were written."""
    return (
        [json.loads(x) for x in results.read_text("utf-8").splitlines()] if results.exists() else []
    )


def of(found: list[dict[str, Any]], run: Wanted) -> list[dict[str, Any]]:
    """Return the lines of a run."""
    key = (run.scenario, run.seed, run.rule, run.rounds, run.schedule)
    names = ("scenario", "seed", "rule", "wanted_rounds", "schedule")
    return [x for x in found if tuple(x[name] for name in names) == key]


def seconds(line: dict[str, Any]) -> float:
    """Return the time to the target from the first task on, s; NaN where it was not reached.

    Before it stands, on the clock of a run's first method alone, what the untrained model scores.
    """
    if line["seconds"] is None:
        return float("nan")
    return float(line["seconds"] - line["first_task_seconds"])


def show(found: list[dict[str, Any]]) -> None:
    """Print the tables."""
    overlapping = [x for x in found if x["schedule"] != "synchronous"]
    found = [x for x in found if x["schedule"] == "synchronous"]
    to_target = {(x["scenario"], x["seed"], x["method"], x["rule"]): x
                 for x in found if x["wanted_rounds"] is None}  # fmt: skip
    for x in overlapping:
        if (waited := to_target.get((x["scenario"], x["seed"], *OURS))) is not None:
            took = "not reached" if x["seconds"] is None else f"{seconds(x):.0f} s"
            print(f"{x['scenario']}, seed {x['seed']}: overlapping {took} in "
                  f"{x['rounds']} beats, waiting {seconds(waited):.0f} s in {waited['rounds']} "
                  "rounds")  # fmt: skip
    for rival, name in ((SHARE, "uniform, equal share"), (IDLE, "uniform, never idle")):
        print(f"\ntime to target: {name} over ours\n")
        print("| scenario | seed | ours | rival | measured | same rounds | plan |")
        print("|---|---|---|---|---|---|---|")
        every = []
        for scenario in BANDWIDTH_HZ:
            for seed in sorted({key[1] for key in to_target if key[0] == scenario}):
                ours, other = (to_target.get((scenario, seed, *one)) for one in (OURS, rival))
                if ours is None or other is None:
                    continue
                took = [seconds(x) for x in (ours, other)]
                told = [
                    f"{t:.0f} s in {x['rounds']}" if np.isfinite(t) else f"not in {x['rounds']}"
                    for t, x in zip(took, (ours, other), strict=True)
                ]
                ratios = [took[1] / took[0]] + [
                    other[key] / ours[key] for key in ("same_rounds_seconds", "plan_seconds")
                ]
                every.append((scenario, ratios))
                print(f"| {scenario} | {seed} | {' | '.join(told)} | "
                      f"{' | '.join(f'{x:.2f}' for x in ratios)} |")  # fmt: skip
        for scenario in ["", *BANDWIDTH_HZ]:
            mine = [ratios for name, ratios in every if scenario in ("", name)]
            if mine:
                cells = " | ".join(f"{x:.2f}" for x in np.median(mine, axis=0))
                print(f"| {scenario or 'all'} | median of {len(mine)} | | | {cells} |")
    print("\nrounds\n")
    print(
        "| scenario | seed | rule | method | rounds | mean: measured, same rounds, law | "
        "95 %: the same | error: median | learned | spread | overhead | late |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for x in found:
        spread = f"{x['median_spread']:.1%}" if x["rule"] == "equal-finish" else ""
        print(f"| {x['scenario']} | {x['seed']} | {x['rule']} | {x['method']} | {x['rounds']} | "
              f"{x['measured_mean']:.2f}, {x['predicted_mean']:.2f}, {x['law_mean']:.2f} s | "
              f"{x['measured_p95']:.1f}, {x['predicted_p95']:.1f}, {x['law_p95']:.1f} s | "
              f"{x['median_error']:.1%} | {x['median_error_learned']:.1%} | {spread} | "
              f"{x['overhead']:.2f} s | {x['late']:.0%} |")  # fmt: skip


def draw(folder: Path, figure: Path) -> None:
    """Draw predicted against measured seconds of the fifty rounds, in every regime."""
    times = [
        replace(each, method=path.name.split("-equal-finish")[0])
        for path in sorted(folder.glob("*-50-rounds"))
        for each in read_times(path)
    ]
    measured_times(times).savefig(figure)


def main() -> None:
    """Run what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scenarios", nargs="+", choices=[*BANDWIDTH_HZ])
    parser.add_argument("--law", action="store_true", help="fifty rounds under equal finish")
    parser.add_argument("--overlapping", action="store_true", help="ours, with rounds that overlap")
    parser.add_argument("--show", action="store_true", help="print the tables alone")
    parser.add_argument("--figure", type=Path, help="draw the fifty rounds of --folder")
    parser.add_argument("--folder", type=Path, default=Path("runs/testbed"))
    parser.add_argument("--results", type=Path, default=HERE / "results" / "testbed.jsonl")
    given = parser.parse_args()
    scenarios = given.scenarios or list(BANDWIDTH_HZ)[: 2 if given.law else 3]
    for run in [] if given.show else wanted(given.seeds, scenarios, given.law, given.overlapping):
        if of(known(given.results), run):
            continue
        if not (given.folder / run.name / "report.html").exists():
            subprocess.run(run.command(given.folder), check=True)
        with given.results.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines(run, given.folder))
    show(known(given.results))
    if given.figure is not None:
        draw(given.folder, given.figure)


if __name__ == "__main__":
    main()
