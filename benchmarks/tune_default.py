"""Choose the default experiment's learning rates on held-out training data.

    .venv/bin/python benchmarks/tune_default.py > tuning.jsonl

Neither the test split nor the comparison of methods is looked at: uniform sampling alone, seed 0,
`[data] eval = "holdout"`. One JSON line a pair of rates.
"""

import itertools
import json
import tempfile

from rich.progress import track

import fedpace as fp

LOCAL = (0.003, 0.01, 0.03)
SERVER = (0.0025, 0.005, 0.01)


def main() -> None:
    for local, server in track(list(itertools.product(LOCAL, SERVER)), "rates"):
        overrides = [
            'methods=["uniform"]', "data.eval=holdout", "training.eval_every=10",
            "training.rounds=40", 'training.target=accuracy>=1',
            f"training.learning_rate={local}", f"training.server_learning_rate={server}",
        ]  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            done = fp.run(fp.load_experiment(None, overrides), out=f"{folder}/run")
        curve = [(r.round + 1, r.evaluation) for r in done.records if r.evaluation]
        print(json.dumps({"learning_rate": local, "server_learning_rate": server,
                          "curve": curve}), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
