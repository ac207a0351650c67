"""Seconds per round of training: participants together (stacked) against one after another (loop).

    python benchmarks/stacked_training.py                        # MiniLM, threads 1, 2, 4
    python benchmarks/stacked_training.py --threads 1 --dtype bfloat16
    python benchmarks/stacked_training.py --busy 4               # with other work on the machine
    OMP_WAIT_POLICY=ACTIVE python benchmarks/stacked_training.py --busy 4

Ten clients, five local steps, LoRA of rank 16 on the queries and values of all-MiniLM-L6-v2.
"docstrings" are those of the standard library, cut to 48 tokens, so that lengths differ;
"equal" are the same examples, those of exactly 32 tokens kept, so that padding plays no part.
Stacked and loop alternate, each round with new batches, so that both see the same machine; the
ratio is the median over the pairs. `--busy` starts processes that only count.
"""

import argparse
import os
import subprocess
import sys
import time

import numpy as np

from fedpace.core.messages import ClientTask
from fedpace.data.load import load_data
from fedpace.lora import LocalTraining, attach_adapter, load_base, make_trainer, tokenise

CLIENTS, STEPS, RANK = 10, 5, 16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--data", nargs="+", default=["docstrings", "equal"])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--busy", type=int, default=0)
    arguments = parser.parse_args()
    # Not at the top: torch reads OMP_WAIT_POLICY when it is loaded, and fedpace.lora sets it.
    import torch

    data, _ = load_data("stdlib-docs", seed=0)
    base = load_base(
        "minilm",
        task="classification",
        num_labels=len(data.label_names),
        layers=arguments.layers,
        dtype=arguments.dtype,
    )
    adapted = attach_adapter(base, rank=RANK, alpha=RANK)
    docstrings = tokenise(data, base, max_length=48)
    equal = tokenise(data, base, max_length=32)
    equal = equal.take(np.flatnonzero(equal.lengths == 32))
    print(
        f"torch {torch.__version__}, {arguments.layers} layers, {arguments.dtype}, "
        f"OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']}, {arguments.busy} busy processes, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print("threads batch data        loop s/round   stacked s/round   loop/stacked (min..max)")
    count = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    busy = [subprocess.Popen([sys.executable, "-c", count]) for _ in range(arguments.busy)]
    try:
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            for kind in arguments.data:
                examples = {"docstrings": docstrings, "equal": equal}[kind]
                clients = [
                    examples.take(np.arange(c, len(examples), CLIENTS)) for c in range(CLIENTS)
                ]
                for batch in arguments.batch:
                    training = LocalTraining(local_steps=STEPS, batch_size=batch)
                    loop, stacked = measure(adapted, clients, training, arguments)
                    ratio = loop / stacked
                    print(
                        f"{threads:7d} {batch:5d} {kind:10s} {np.median(loop):13.2f} "
                        f"{np.median(stacked):17.2f}   {np.median(ratio):12.2f} "
                        f"({ratio.min():.2f}..{ratio.max():.2f})",
                        flush=True,
                    )
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measure(adapted, clients, training, arguments):
    """Seconds of each round by both, shape (pairs,)."""
    trainers = [
        make_trainer(adapted, clients, training, stacked=stacked, max_tokens=arguments.max_tokens)
        for stacked in (False, True)
    ]
    seconds = np.empty((2, arguments.pairs))
    for pair in range(-1, arguments.pairs):  # the first warms up
        tasks = [ClientTask(c, pair + 1, adapted.initial, RANK, seed=0) for c in range(CLIENTS)]
        for which, train in enumerate(trainers):
            began = time.perf_counter()
            train(tasks)
            if pair >= 0:
                seconds[which, pair] = time.perf_counter() - began
    return seconds


if __name__ == "__main__":
    main()
