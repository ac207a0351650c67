"""What `fedpace doctor my.toml` predicts, against a run: peak memory and seconds of a round.

    python benchmarks/memory_prediction.py                        # three models; about 15 minutes
    python benchmarks/memory_prediction.py --models stories260K

Every prediction and every run is a process of its own. The peak is that of the whole process, as
the kernel counts it; seconds are the processor's, of a run of three rounds less one of one round,
both without evaluations in between. One thread.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
MODELS = {
    "stories260K": [
        "--set", "model.name={shared}/models/stories260K", "--set", "model.task=causal-lm",
        "--set", "model.pooling=model", "--set", "data.name={shared}/data/dolly15k",
        "--set", "training.target=loss<=0.1",
    ],
    "minilm": [],
    "smollm2": [str(ROOT / "examples/05_smollm2.toml"),
                "--set", "data.name={shared}/data/dolly15k"],
}  # fmt: skip
SHORT = ["--set", "data.max_eval=8", "--set", "evaluation.samples=0", "--set",
         "training.eval_every=1000", "--method", "adaptive"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--shared", default=str(ROOT.parent / "shared"))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print("model        peak, MB: predicted  measured  error   s a round: predicted  measured")
    for name in arguments.models:
        given = [part.format(shared=arguments.shared) for part in MODELS[name]]
        told, _, _ = measured(["doctor", *given, *SHORT[:-2], "--json"])
        fit = json.loads(told)
        with tempfile.TemporaryDirectory() as folder:
            found = [
                measured(["run", *given, *SHORT, "--set", f"training.rounds={rounds}",
                          "--out", f"{folder}/{rounds}"])
                for rounds in (1, arguments.rounds)
            ]  # fmt: skip
            lines = (Path(folder) / str(arguments.rounds) / "rounds.jsonl").read_text()
        counts = [len(json.loads(line)["participants"]) for line in lines.splitlines()]
        seconds = (found[1][2] - found[0][2]) / sum(counts[1:]) * fit["participants"]
        peak, predicted = found[1][1], fit["peak_bytes"]
        print(f"{name:12} {predicted / 1e6:19.0f} {peak / 1e6:9.0f} {predicted / peak - 1:+6.1%} "
              f"{fit['processor_seconds_per_round']:20.2f} {seconds:9.2f}   "
              f"({np.mean(counts):.1f} participants)", flush=True)  # fmt: skip


def measured(words: list[str]) -> tuple[str, float, float]:
    """Run a command: what it prints, its peak memory, bytes, and its processor seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "fedpace", *words],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    return text, 1024.0 * usage.ru_maxrss, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
