"""How far the updates of honest clients lie from the limits of the norm check.

    python benchmarks/update_norms.py runs/1 [benchmarks/results/norms-trec.jsonl ...]
    python benchmarks/update_norms.py runs/1 --save benchmarks/results/norms-trec.jsonl

reads run folders of honest clients, or what was saved of them, and passes the norms of their
updates, round by round, through the checks of `fedpace serve` (`fedpace.federation.checks`).
Printed for each method: rounds, updates, refusals, clients excluded, and for the LoRA part and the
head the largest norm over the scale of its limit (the limit is `norm_factor` times the scale), and
over the pooled median of the last 100, which was the scale of earlier versions.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fedpace.experiment.config import load_experiment
from fedpace.federation.checks import Checks, Norms, Watch, judge_norms, norm_limits
from fedpace.run_folder.reader import read_records

INITIAL_NORM = float("inf")
"""The folder does not say how long the first adapter was: the first rounds are judged by none."""

Round = tuple[str, int, list[tuple[int, Norms]]]
"""Method, number, and (client, norms) of its updates."""


def read_rounds(path: Path) -> tuple[int, Iterator[Round]]:
    """Return how many clients a run has, and its rounds."""
    if path.suffix == ".jsonl":
        head, *lines = map(json.loads, path.read_text().splitlines())
        rounds = (
            (method, index, [(client, (lora, part)) for client, lora, part in norms])
            for method, index, norms in lines
        )
        return head["clients"], rounds
    experiment = load_experiment(path / "experiment.toml")
    rank = experiment.lora.rank
    return experiment.data.clients, (
        (record.method, record.round,
         [(p.client, (float(np.sqrt(p.lora_squared_norm * p.sketch_rank / rank)),
                      float(np.sqrt(p.head_squared_norm)))) for p in record.participants])
        for record in read_records(path)
    )  # fmt: skip


def save(path: Path, to: Path) -> None:
    """Write the norms of a run folder, to four digits."""
    clients, rounds = read_rounds(path)
    lines = [json.dumps({"clients": clients})]
    for method, index, norms in rounds:
        short = [[client, *(float(f"{norm:.4g}") for norm in sizes)] for client, sizes in norms]
        lines.append(json.dumps([method, index, short], separators=(",", ":")))
    to.write_text("\n".join(lines) + "\n")


def main(paths: list[Path], factor: float = Checks().norm_factor) -> None:
    """Print the table of some runs."""
    checks = Checks(norm_factor=factor)
    print("run             method      rounds  updates  refused  excluded   LoRA   head    "
          "pooled medians")  # fmt: skip
    for path in paths:
        clients, rounds = read_rounds(path)
        watches: dict[str, Watch] = defaultdict(Watch)
        count: dict[str, int] = defaultdict(int)
        updates: dict[str, int] = defaultdict(int)
        refused: dict[str, int] = defaultdict(int)
        gone: dict[str, set[int]] = defaultdict(set)
        most = defaultdict(lambda: np.zeros(4))
        for name, index, norms in rounds:
            judged = (checks, watches[name], index, norms, INITIAL_NORM, clients)
            limits, watch = norm_limits(*judged)
            pooled = np.sort(np.array([n for *_, n in watch.recent]).reshape(-1, 2), axis=0)
            count[name] += 1
            for (_, sizes), limit in zip(norms, limits, strict=True):
                updates[name] += 1
                median = pooled[(len(pooled) - 1) // 2]
                ratios = [*(factor * np.array(sizes) / limit), *(np.array(sizes) / median)]
                most[name] = np.maximum(most[name], ratios)
            reasons, watches[name] = judge_norms(*judged)
            refused[name] += sum(map(bool, reasons))
            gone[name] |= watches[name].excluded(checks)
        for name in updates:
            lora, head, *old = most[name]
            print(f"{path.stem:15} {name:10} {count[name]:7}  {updates[name]:7}  "
                  f"{refused[name]:7}  {len(gone[name]):8}  {lora:5.2f}  {head:5.2f}    "
                  f"{old[0]:.1f} {old[1]:.1f}")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--save", type=Path, help="of the one run folder given, to a file")
    options = parser.parse_args()
    if options.save:
        save(options.paths[0], options.save)
    else:
        main(options.paths)
