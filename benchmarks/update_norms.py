"""How far the updates of honest clients lie from the limits of the norm check.

    python benchmarks/update_norms.py runs/1 [runs/2 ...]

reads run folders of honest clients and passes the norms of their updates, round by round, through
the checks of `fedpace serve` (`fedpace.federation.checks`). Printed for each method: updates,
refusals, clients excluded, and for the LoRA part and the head the largest norm over the scale of
its limit (the limit is `norm_factor` times the scale), and over the pooled median of the last 100,
which was the scale of earlier versions.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from fedpace.experiment.config import load_experiment
from fedpace.federation.checks import Checks, Watch, judge_norms, norm_limits
from fedpace.run_folder.reader import read_records

INITIAL_NORM = float("inf")
"""The folder does not say how long the first adapter was: the first rounds are judged by none."""


def main(folders: list[Path], factor: float = Checks().norm_factor) -> None:
    """Print the table of some run folders."""
    checks = Checks(norm_factor=factor)
    print("run        method           updates  refused  excluded   LoRA   head    pooled medians")
    for folder in folders:
        experiment = load_experiment(folder / "experiment.toml")
        watches: dict[str, Watch] = defaultdict(Watch)
        updates: dict[str, int] = defaultdict(int)
        refused: dict[str, int] = defaultdict(int)
        gone: dict[str, set[int]] = defaultdict(set)
        most = defaultdict(lambda: np.zeros(4))
        for record in read_records(folder):
            name, watch = record.method, watches[record.method]
            norms = [
                (p.client, (float(np.sqrt(p.lora_squared_norm * p.sketch_rank
                                          / experiment.lora.rank)),
                            float(np.sqrt(p.head_squared_norm))))
                for p in record.participants
            ]  # fmt: skip
            judged = (
                checks, watch, record.round, norms, INITIAL_NORM, experiment.data.clients
            )  # fmt: skip
            limits, watch = norm_limits(*judged)
            pooled = np.sort(np.array([n for *_, n in watch.recent]).reshape(-1, 2), axis=0)
            for (_, sizes), limit in zip(norms, limits, strict=True):
                updates[name] += 1
                median = pooled[(len(pooled) - 1) // 2]
                ratios = [*(factor * np.array(sizes) / limit), *(np.array(sizes) / median)]
                most[name] = np.maximum(most[name], ratios)
            reasons, watches[name] = judge_norms(*judged)
            refused[name] += sum(map(bool, reasons))
            gone[name] |= watches[name].excluded(checks)
        for name, count in updates.items():
            lora, head, *old = most[name]
            print(f"{folder.name:10} {name:16} {count:7}  {refused[name]:7}  {len(gone[name]):8}  "
                  f"{lora:5.2f}  {head:5.2f}    {old[0]:.1f} {old[1]:.1f}")  # fmt: skip


if __name__ == "__main__":
    main([Path(each) for each in sys.argv[1:]])
