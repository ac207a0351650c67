"""The toy federation as the work of a run: everything but a model."""

import numpy as np

from federation.toy import LAYOUT, random_adapter, towards
from fedpace.experiment.build import Work
from fedpace.experiment.config import Experiment
from fedpace.experiment.network import build_network
from fedpace.experiment.parsing import parse
from fedpace.run_folder.atomic import write_text
from fedpace.wireless.network import Network


def toy_experiment(**sections):
    table = {
        "methods": ["uniform"],
        "lora": {"rank": LAYOUT.rank, "upload_dtype": "float32"},  # as toy.exchange
        "training": {"rounds": 8, "eval_every": 100, "server_optimizer": "sgd",
                     "server_learning_rate": 0.5},
        "network": {"bandwidth_hz": 1e4},
    }  # fmt: skip
    for name, section in sections.items():
        table[name] = {**table.get(name, {}), **section} if isinstance(section, dict) else section
    return parse(Experiment, table, "toy")


def toy_network(experiment, weight):
    return build_network(experiment, np.asarray(weight, float), fixed_bits=192, bits_per_rank=416)


def toy_work(network: Network, train=None, seen=None):
    """`seen` gets every adapter that is evaluated."""

    def evaluate(adapter):
        if seen is not None:
            seen.append({name: value.copy() for name, value in adapter.items()})
        return {"loss": float(sum(np.square(adapter[name]).sum() for name in sorted(adapter)))}

    train = train or towards(random_adapter(9))
    return Work(
        layout=LAYOUT,
        initial_adapter=random_adapter(1),
        make_train=lambda sketch, trained: train,
        evaluate=evaluate,
        save=lambda adapter, folder: write_text(_made(folder) / "toy", repr(sorted(adapter))),
        network=network,
        fingerprint={"toy": "toy"},
    )


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder
