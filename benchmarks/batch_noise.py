"""Which share of a client's update is noise of its batches: beta of docs/theory.md, section 9.3.

    OMP_NUM_THREADS=1 python benchmarks/batch_noise.py DATA [DATA ...] [--set KEY=VALUE ...]

Ten clients of fifty train twice from one adapter, on different batches: half of the squared
distance of the two updates over their mean square, at the start and after five rounds of averages.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.profile import Floats
from fedpace.experiment.config import load_experiment
from fedpace.experiment.prepare import prepare

SETTINGS = (
    'methods=["uniform"]', "data.clients=50", "data.partition=dirichlet", "data.alpha=0.3",
    "data.size_sigma=1.0", "model.layers=2", "model.pooling=mean", "model.max_length=32",
    "lora.rank=16", "lora.alpha=64.0", "lora.sketch=residual", "training.local_steps=5",
    "training.batch_size=4", "training.learning_rate=0.1",
)  # fmt: skip
"""Those of the benchmark's suites."""
CLIENTS, ROUNDS = range(0, 50, 5), 5


def flat(updates: Sequence[ClientUpdate]) -> Floats:
    """Return the updates as rows."""
    return np.array([np.concatenate([v.ravel() for v in u.delta.values()]) for u in updates])


def main() -> None:
    """Print the share of every data set."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    arguments = parser.parse_args()
    for data in arguments.data:
        told = load_experiment(None, [*SETTINGS, f"data.name={data}", *arguments.set])
        ready = prepare(told)
        setup, adapter = ready.setups["uniform"], dict(ready.site.work.initial_adapter)
        weight = setup.network.clients.data_weight[list(CLIENTS)]

        def trained(number: int, held=adapter, train=setup.train, told=told):
            tasks = [ClientTask(n, number, held, told.lora.rank, told.seed) for n in CLIENTS]
            return train(tasks)

        for done in range(ROUNDS + 1):
            one = trained(2 * done)
            if done in (0, ROUNDS):
                first, other = flat(one), flat(trained(2 * done + 1))
                share = np.sum((first - other) ** 2, axis=1) / np.sum(first**2 + other**2, axis=1)
                print(f"{data}, after {done} rounds: median {np.median(share):.2f}, from "
                      f"{share.min():.2f} to {share.max():.2f}", flush=True)  # fmt: skip
            for name in adapter:
                changes = [a * u.delta[name] for a, u in zip(weight, one, strict=True)]
                adapter[name] = adapter[name] + sum(changes) / weight.sum()


if __name__ == "__main__":
    main()
