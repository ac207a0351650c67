"""What `fedpace doctor my.toml` predicts, against a run: peak memory and seconds of a round.

    python benchmarks/memory_prediction.py                        # three models; 6 minutes at most
    python benchmarks/memory_prediction.py --models stories260K
    python benchmarks/memory_prediction.py --models long recomputed   # gradient checkpointing

Every prediction and every run, of one round, is a process of its own on one thread. The peak is
that of the whole process, as the kernel counts it; seconds are the processor's, of training alone.
Dolly's first 400 examples stand for it: no more is trained on. "long" and "recomputed" are SmolLM2
with one client, batches of 8 blocks of 256 tokens, without and with gradient checkpointing. Dolly
and the model stories260K lie below `--shared`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fedpace import load_experiment
from fedpace.data.load import load_data

ROOT = Path(__file__).resolve().parents[1]
SHORT = ["training.schedule=synchronous", "data.max_eval=8", "evaluation.samples=0",
         "training.rounds=1", "training.local_steps=1"]  # fmt: skip
SMOLLM2 = ROOT / "examples/05_smollm2.toml"
SMALL = ["data.name={data}", "model.dtype=float32"]
"""Few processors have instructions for bfloat16; without them it takes several times as long."""
LONG = [
    "data.name={text}", "data.clients=1", "data.partition=iid", "data.max_eval=1",
    "model.dtype=float32", "model.max_length=256", "training.batch_size=8", "planner.name=full",
]  # fmt: skip
MODELS = {
    "stories260K": (None, ["data.name={data}", "model.name={shared}/models/stories260K",
                           "model.task=causal-lm", "model.pooling=model", "model.max_length=256",
                           "training.target=loss<=0.1"]),
    "minilm": (None, []),
    "smollm2": (SMOLLM2, SMALL),
    "long": (SMOLLM2, LONG),
    "recomputed": (SMOLLM2, [*LONG, "training.gradient_checkpointing=true"]),
}  # fmt: skip
"""Experiment file (None: the embedded default) and what is changed of it."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS)[:3], choices=list(MODELS))
    parser.add_argument("--shared", default=str(ROOT.parent / "shared"))
    parser.add_argument("--cell", nargs=2, help="doctor or run, a folder: do this, print JSON")
    arguments = parser.parse_args()
    if arguments.cell:
        what, folder = arguments.cell
        print(json.dumps(CELLS[what](experiment_of(arguments, folder), folder)))
        return
    print("model        peak, MB: predicted  measured  error   s a round: predicted  measured")
    with tempfile.TemporaryDirectory() as folder:
        some_of_dolly(Path(arguments.shared) / "data/dolly15k", Path(folder))
        for name in arguments.models:
            given = ["--models", name, "--shared", arguments.shared]
            told = in_a_process([*given, "--cell", "doctor", folder])[0]
            done, peak = in_a_process([*given, "--cell", "run", folder])
            predicted = told["peak_bytes"]
            seconds = done["seconds"] / done["participants"] * told["participants"]
            print(f"{name:12} {predicted / 1e6:19.0f} {peak / 1e6:9.0f} "
                  f"{predicted / peak - 1:+6.1%} {told['processor_seconds']:20.2f} "
                  f"{seconds:9.2f}   "
                  f"({done['participants']} participants)", flush=True)  # fmt: skip


def experiment_of(arguments: argparse.Namespace, folder: str):
    path, changes = MODELS[arguments.models[0]]
    given = [
        x.format(shared=arguments.shared, data=f"{folder}/dolly", text=f"{folder}/text")
        for x in changes
    ]
    experiment = load_experiment(path, [*SHORT, *given])
    return experiment.model_copy(update={"methods": ["adaptive"]})


def some_of_dolly(source: Path, folder: Path) -> None:
    """Write its first examples, and the same as plain text in passages of about 1000 tokens."""
    for kind in ("dolly", "text"):
        (folder / kind).mkdir()
    for name, data in zip(("train", "test"), load_data(str(source), seed=0), strict=True):
        rows = list(zip(data.text[:400], data.response, data.group, strict=False))
        lines = [json.dumps({"prompt": p, "response": r, "group": str(g)}) for p, r, g in rows]
        (folder / "dolly" / f"{name}.jsonl").write_text("\n".join(lines))
        passages = ["".join(f"{p} {r} " for p, r, _ in rows[i : i + 6]) for i in range(0, 400, 6)]
        lines = [json.dumps({"text": passage}) for passage in passages]
        (folder / "text" / f"{name}.jsonl").write_text("\n".join(lines))


def in_a_process(words: list[str]) -> tuple[dict, float]:
    """Do a cell: what it prints, and the peak memory of its process, bytes."""
    process = subprocess.Popen(
        [sys.executable, __file__, *words],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    return json.loads(text.splitlines()[-1]), 1024.0 * usage.ru_maxrss


def doctor(experiment, folder: str) -> dict:
    from fedpace.experiment.fit import try_fit

    fit = try_fit(experiment)
    return {
        "peak_bytes": fit.peak_bytes,
        "participants": fit.participants,
        "processor_seconds": fit.processor_seconds_per_round,
    }


def run(experiment, folder: str) -> dict:
    import fedpace
    from fedpace.lora.trainer import Trainer

    train, found = Trainer.__call__, {}

    def timed(self, tasks):
        began = time.process_time()
        updates = train(self, tasks)
        found.update(seconds=time.process_time() - began, participants=len(tasks))
        return updates

    Trainer.__call__ = timed
    with tempfile.TemporaryDirectory(dir=folder) as out:
        fedpace.run(experiment, out=Path(out) / "run")
    return found


CELLS = {"doctor": doctor, "run": run}

if __name__ == "__main__":
    main()
