"""How far the updates of honest clients lie from their median: how strict the norm check may be.

    python benchmarks/update_norms.py runs/1

reads a run folder and prints, for each method and part, the norm of an update over the lower
median of the last 100 (as `fedpace.federation.checks` has it): median, 99 % quantile, largest.
"""

import sys
from collections import defaultdict, deque
from pathlib import Path

import numpy as np

from fedpace.experiment.config import load_experiment
from fedpace.federation.checks import Checks
from fedpace.run_folder.reader import read_records


def main(folder: Path) -> None:
    """Print the table of a run folder."""
    rank = load_experiment(folder / "experiment.toml").lora.rank
    window = Checks().window
    seen: dict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=window))
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in read_records(folder):
        for part in ("lora", "head"):
            key = (record.method, part)
            norms = [
                np.sqrt(p.lora_squared_norm * p.sketch_rank / rank)
                if part == "lora"
                else np.sqrt(p.head_squared_norm)
                for p in record.participants
            ]
            seen[key].extend(norms)
            if norms:
                ratios[key] += (norms / np.sort(seen[key])[(len(seen[key]) - 1) // 2]).tolist()
    print("method                part   updates  median    99 %  largest")
    for (method, part), found in ratios.items():
        half, most, largest = np.quantile(found, [0.5, 0.99, 1.0])
        print(f"{method:20}  {part:5} {len(found):8} {half:7.2f} {most:7.2f}  {largest:7.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
