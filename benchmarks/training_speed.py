"""Processor seconds and peak memory of a round: stacked, one by one, and a plain PEFT loop.

    python benchmarks/training_speed.py                            # all models; about 10 minutes
    python benchmarks/training_speed.py --models smollm2 --rounds 2
    python benchmarks/training_speed.py --models minilm --dtypes float32 bfloat16
    python benchmarks/training_speed.py --models minilm --populations 100 10000

Every cell is a process of its own on one thread, so that its peak memory is its own, and seconds
are the processor's, so that other work on the machine counts little. A round trains `--clients`
participants on their own examples, at the lengths that the data has. "peft" is what one writes by
hand: for each client load the adapter, step an optimiser over PEFT's own parameters with the
model's own loss, read the adapter. Data and the model stories260K lie below `--shared`; smollm2 and
minilm come from their packages.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from fedpace import load_experiment
from fedpace.core.messages import ClientTask
from fedpace.core.rng import rng_for

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("peft", "loop", "stacked")
MODELS = {
    "stories260K": (None, ["model.name={shared}/models/stories260K", "model.task=causal-lm",
                           "model.pooling=model", "model.max_length=64",
                           "data.name={shared}/data/tinystories_sample"]),
    "minilm": (None, []),
    "smollm2": (ROOT / "examples/05_smollm2.toml", ["data.name={shared}/data/dolly15k"]),
}  # fmt: skip
"""Experiment file (None: the embedded default) and what is changed of it."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--dtypes", nargs="+", help="in place of the experiment's")
    parser.add_argument("--populations", type=int, nargs="+", default=[100])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shared", default=str(ROOT.parent / "shared"))
    parser.add_argument("--cell", help="model,way,dtype,population: measure this one, print JSON")
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(measure(arguments)))
        return
    print("model        dtype     population  way      s/round  tokens/s  over peft  peak MiB")
    for name in arguments.models:
        for dtype in arguments.dtypes or ["as given"]:
            for count in arguments.populations:
                base = None
                for way in arguments.ways:
                    cell = f"{name},{way},{dtype},{count}"
                    done = subprocess.run(
                        [sys.executable, __file__, *sys.argv[1:], "--cell", cell],
                        check=True, stdout=subprocess.PIPE, text=True,
                    )  # fmt: skip
                    got = json.loads(done.stdout.splitlines()[-1])
                    base = base or got["seconds"]
                    print(f"{name:12} {got['dtype']:9} {count:10}  {way:7} {got['seconds']:8.2f} "
                          f"{got['tokens'] / got['seconds']:9.0f} {base / got['seconds']:10.2f} "
                          f"{got['peak'] / 2**20:9.0f}", flush=True)  # fmt: skip


def measure(arguments: argparse.Namespace) -> dict:
    """One cell: median processor seconds a round, tokens in it, peak memory while training."""
    name, way, dtype, count = arguments.cell.split(",")
    path, changes = MODELS[name]
    changes = [change.format(shared=arguments.shared) for change in changes]
    if dtype != "as given":
        changes.append(f"model.dtype={dtype}")
    import torch

    from fedpace.experiment.build import build_model, examples_of, local_training, tokenised
    from fedpace.lora import make_trainer

    torch.set_num_threads(1)
    experiment = load_experiment(path, changes)
    data, _ = examples_of(experiment)
    adapted = build_model(experiment, data.label_names)
    tokens = tokenised(experiment, data.take(np.arange(min(len(data), 2000))), adapted)
    clients = shares(tokens, int(count))
    training = local_training(experiment)
    if way == "peft":
        train = plain_peft(adapted, clients, training)
    else:
        train = make_trainer(adapted, clients, training, stacked=way == "stacked")
    rank, seconds, seen = adapted.layout.rank, [], 0
    for index in range(arguments.rounds + 1):  # the first warms up
        chosen = rng_for(0, "participation", index).permutation(int(count))[: arguments.clients]
        tasks = [ClientTask(int(c), index, adapted.initial, rank, seed=0) for c in chosen]
        if index == 1:
            reset_peak()
        began = time.process_time()
        train(tasks)
        if index:
            seconds.append(time.process_time() - began)
            seen += sum(
                int(clients[t.client].lengths[rows].sum())
                for t in tasks
                for rows in training.draw_batches(t, clients[t.client])
            )
    return {
        "seconds": float(np.median(seconds)),
        "tokens": seen / arguments.rounds,
        "peak": peak_bytes(),
        "dtype": experiment.model.dtype,
    }


def shares(tokens, count: int):
    """Each client eight examples, the same ones again where the population is large."""
    return [tokens.take((np.arange(8) + 8 * c) % len(tokens)) for c in range(count)]


def plain_peft(adapted, clients, training):
    """What one writes by hand with PEFT; whole rank, the same batches."""
    from fedpace.core.messages import ClientUpdate
    from fedpace.lora.adapter import to_array, write_adapter
    from fedpace.lora.tasks import collate

    model = adapted.model
    own = {n: p for n, p in model.named_parameters() if n in adapted.initial}
    for p in own.values():
        p.requires_grad_(True)

    def train(tasks):
        updates = []
        for task in tasks:
            write_adapter(adapted, task.adapter)
            optimizer = training.make_optimizer(own.values())
            for rows in training.draw_batches(task, clients[task.client]):
                batch = collate(clients[task.client].take(rows), adapted)
                loss = model(**batch.inputs, labels=batch.labels).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            delta = {n: to_array(p.detach()) - task.adapter[n] for n, p in own.items()}
            components = np.arange(adapted.layout.rank)
            updates.append(ClientUpdate(task.client, task.round_index, components, delta, 0.0))
        return updates

    return train


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
