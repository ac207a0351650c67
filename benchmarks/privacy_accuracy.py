"""What privacy costs: accuracy against epsilon at three noise levels, beside none.

    python benchmarks/privacy_accuracy.py DATA [--rounds 15] [--seeds 1] [--set KEY=VALUE ...]

DATA is a folder or file of labelled examples (docs/privacy.md: TREC, 5,452 questions of six kinds),
dealt to 400 clients, half of whom take part in a round, by the planner with the least noise
(`weighted`). The model is the first two layers of MiniLM with an adapter of rank 2. All levels have
the same seeds, so the same participants, batches and initial adapter; `clip_norm` is the same for
all, and rates are not tuned for any. Printed: noise multiplier, epsilon of the worst and the median
client, accuracy and loss at the end, the most accurate evaluation.
"""

import argparse

import numpy as np

from fedpace.experiment.config import Experiment, load_experiment
from fedpace.experiment.loop import play
from fedpace.experiment.prepare import prepare
from fedpace.experiment.site import in_process

LEVELS: tuple[float | None, ...] = (None, 0.0, 0.5, 1.0, 2.0)
"""Noise multipliers; None is no [privacy] at all, 0 cuts updates and adds nothing."""
DELTA = 1e-4
SETTINGS = (
    'methods=["weighted"]', "planner.cohort=0.5", "data.clients=400", "data.partition=iid",
    "data.size_sigma=0.0", "model.layers=2", "model.max_length=24", "lora.rank=2", "lora.alpha=4.0",
    "lora.upload_dtype=float32",
    "training.local_steps=2", "training.batch_size=4", "training.eval_every=5",
)  # fmt: skip


def experiment(arguments: argparse.Namespace, seed: int, level: float | None) -> Experiment:
    """Return the experiment of one level."""
    changes = [*SETTINGS, f"data.name={arguments.data}", f"training.rounds={arguments.rounds}",
               f"seed={seed}", *arguments.set]  # fmt: skip
    if level is not None:
        changes += [f"privacy.clip_norm={arguments.clip}", f"privacy.noise_multiplier={level}",
                    f"privacy.delta={DELTA}"]  # fmt: skip
    told = load_experiment(None, changes)
    return told.model_copy(update={"training": told.training.model_copy(update={"target": None})})


def main() -> None:
    """Run every level and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    arguments = parser.parse_args()
    print("seed  noise   epsilon (median)   accuracy    loss   best accuracy   median norm")
    for seed in range(arguments.seeds):
        site = in_process(experiment(arguments, seed, None))
        for level in LEVELS:
            ready = prepare(experiment(arguments, seed, level), lambda told, site=site: site)
            records = [record for record, _ in play(ready, "weighted")]
            seen = [r.evaluation for r in records if r.evaluation is not None]
            spent = records[-1].privacy
            told = "-" if spent is None else f"{spent['epsilon_max']:.2f}"
            told += "" if spent is None else f" ({spent['epsilon_median']:.2f})"
            norms = [(p.lora_squared_norm + p.head_squared_norm) ** 0.5
                     for r in records for p in r.participants]  # fmt: skip
            print(f"{seed:4}  {'none' if level is None else level:>5}  {told:>17}  "
                  f"{seen[-1]['accuracy']:9.3f}  {seen[-1]['loss']:6.3f}  "
                  f"{max(e['accuracy'] for e in seen):14.3f}  {np.median(norms):12.3f}",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
