"""Processor seconds and peak memory of a round: stacked, one by one, and a plain PEFT loop.

    python benchmarks/training_speed.py                    # all cells; 6 minutes at most
    python benchmarks/training_speed.py --cells smollm2,bfloat16,100 --ways loop stacked

bfloat16 pays where the processor has instructions for it, as lscpu tells
(avx512_bf16, amx_bf16, bf16).

A cell is a model, the type of its base and the number of clients; of 10,000 clients there are the
examples of the few, again and again. Every cell and way is a process of its own on one thread, so
that its peak memory is its own, and seconds are the processor's, so that other work on the machine
counts little. A round trains `--clients` participants on their own examples, at the lengths that
the data has; rounds are repeated for `--seconds`, and there is at least one. "peft" is what one
writes by hand: for each client load the adapter, step an optimiser over PEFT's own parameters with
the model's own loss, read the adapter. Data and the model stories260K lie below `--shared`; smollm2
and minilm come from their packages.
"""

import argparse
import json
import os
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
    "smollm2": (ROOT / "examples/05_smollm2.toml",
                ["data.name={shared}/data/dolly15k", "training.local_steps=1",
                 "training.batch_size=2"]),
}  # fmt: skip
"""Experiment file (None: the embedded default) and what is changed of it."""
CELLS = (
    "stories260K,float32,100",
    "stories260K,bfloat16,100",
    "minilm,float32,100",
    "minilm,float32,10000",
    "smollm2,float32,100",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", default=CELLS, help="model,dtype,clients")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--shared", default=str(ROOT.parent / "shared"))
    parser.add_argument("--one", help="a cell and a way: measure it, print JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments)))
        return
    print("model        dtype     population  way      s/round  tokens/s  over peft  peak MiB")
    for cell in arguments.cells:
        name, dtype, count = cell.split(",")
        base = None
        for way in arguments.ways:
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--one", f"{cell},{way}"],
                check=True, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            got = json.loads(done.stdout.splitlines()[-1])
            base = base or got["seconds"]
            print(f"{name:12} {dtype:9} {count:>10}  {way:7} {got['seconds']:8.2f} "
                  f"{got['tokens'] / got['seconds']:9.0f} {base / got['seconds']:10.2f} "
                  f"{got['peak'] / 2**20:9.0f}", flush=True)  # fmt: skip


def measure(arguments: argparse.Namespace) -> dict:
    """One cell, one way: processor seconds a round, tokens in it, peak memory while training."""
    name, dtype, count, way = arguments.one.split(",")
    path, changes = MODELS[name]
    changes = [change.format(shared=arguments.shared) for change in changes]
    import torch

    from fedpace.experiment.build import build_model, examples_of, local_training, tokenised
    from fedpace.lora import make_trainer

    torch.set_num_threads(1)
    experiment = load_experiment(path, [*changes, f"model.dtype={dtype}"])
    data, _ = examples_of(experiment)
    adapted = build_model(experiment, data.label_names)
    tokens = tokenised(experiment, data.take(np.arange(min(len(data), 800))), adapted)
    clients = shares(tokens, int(count))
    training = local_training(experiment)
    if way == "peft":
        train = plain_peft(adapted, clients, training)
    else:
        train = make_trainer(adapted, clients, training, stacked=way == "stacked")
    rank, rounds, spent, seen = adapted.layout.rank, 0, 0.0, 0

    def tasks(index, size):
        chosen = rng_for(0, "participation", index).permutation(int(count))[:size]
        return [ClientTask(int(c), index, adapted.initial, rank, seed=0) for c in chosen]

    train(tasks(0, 1))  # what is done once
    reset_peak()
    while spent < arguments.seconds:
        rounds += 1
        asked = tasks(rounds, arguments.clients)
        began = time.process_time()
        train(asked)
        spent += time.process_time() - began
        seen += sum(
            int(clients[t.client].lengths[rows].sum())
            for t in asked
            for rows in training.draw_batches(t, clients[t.client])
        )
    return {"seconds": spent / rounds, "tokens": seen / rounds, "peak": peak_bytes()}


def shares(tokens, count: int):
    """Each client eight examples, the same ones again where the population is large."""
    return [tokens.take((np.arange(8) + 8 * c) % len(tokens)) for c in range(count)]


def plain_peft(adapted, clients, training):
    """What one writes by hand with PEFT; whole rank, the same batches."""
    from torch.nn import functional

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
                output = model(**batch.inputs, labels=batch.labels)
                loss = output.loss  # mean pooling is ours and has none
                if loss is None:
                    loss = functional.cross_entropy(output.logits, batch.labels)
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
