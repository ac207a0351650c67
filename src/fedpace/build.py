"""The only place that turns an experiment into live objects: model, data, trainer, plans."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedpace.config import Experiment
from fedpace.core.adapter import Adapter, AdapterLayout
from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.core.plan import Plan
from fedpace.core.rng import rng_for
from fedpace.core.target import Target
from fedpace.data.load import load_data
from fedpace.engines.codec import encoded_bytes
from fedpace.engines.simulated import Network
from fedpace.federation.engine import Train
from fedpace.federation.partition import partition
from fedpace.lora import (
    AdaptedModel,
    LocalTraining,
    attach_adapter,
    evaluate,
    load_base,
    make_trainer,
    save_adapter,
    tokenise,
)
from fedpace.network import build_network, planning_clients
from fedpace.planning.planner import PLANNERS, SCALED, plan


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What all methods of an experiment share: the same work."""

    layout: AdapterLayout
    initial_adapter: Adapter
    train: Train
    evaluate: Callable[[Adapter], dict[str, float]]
    """A global adapter -> "loss" and, for classification, "accuracy" on held-out data."""
    save: Callable[[Adapter, Path], None]
    """Write a global adapter in PEFT's format."""
    network: Network
    fingerprint: str
    """Of the examples, how they lie with the clients, and the adapter's layout; a resumed run
    must find the same."""


def planner_of(experiment: Experiment, method: str) -> str:
    """Return the planner a method uses: "adaptive" the experiment's, any other its namesake.

    Raises:
        InputError: no such method or planner; the message lists all.
    """
    name = experiment.planner.name if method == "adaptive" else method
    if name not in PLANNERS:
        if method == "adaptive":
            raise InputError(f"[planner] name = {name!r}: choose one of {', '.join(PLANNERS)}")
        raise InputError(f"method {name!r} is unknown; choose of adaptive, {', '.join(PLANNERS)}")
    return name


def planner_options(experiment: Experiment, method: str) -> dict[str, Any]:
    """Return what `planning.planner.plan` is told for a method, besides clients and system.

    Raises:
        InputError: as `planner_of`; or a cohort is given and no method of the experiment takes one.
    """
    section, name = experiment.planner, planner_of(experiment, method)
    if section.cohort is not None:
        names = [planner_of(experiment, each) for each in experiment.methods]
        if not set(names) & set(SCALED):
            raise InputError(
                f"[planner] cohort = {section.cohort:g}: every method ({', '.join(names)}) chooses "
                f"its cohort itself; leave it out, or add one of {', '.join(SCALED)} to methods"
            )
    return {
        "planner": name,
        "q_min": section.q_min,
        "quantile": section.quantile,
        "cohort": section.cohort if name in SCALED else None,
    }


def make_plan(experiment: Experiment, network: Network, method: str) -> Plan:
    """Plan a method's sampling probabilities and ranks, from what is known before the run."""
    return plan(
        planning_clients(network),
        network.system,
        **planner_options(experiment, method),
    )


def build_work(experiment: Experiment) -> Work:
    """Load model and data, deal the data to the clients, draw the network.

    Raises:
        InputError: something in the experiment does not fit; nothing has been written.
    """
    for method in experiment.methods:
        planner_options(experiment, method)  # before the long part
    if experiment.training.target is not None:
        target = Target.parse(experiment.training.target)
        if target.metric == "accuracy" and experiment.model.task != "classification":
            raise InputError(
                f"[training] target = {str(target)!r}: a causal-lm task has no accuracy; "
                "set a target on the loss"
            )
    seed, data, training = experiment.seed, experiment.data, experiment.training
    train, held_out = load_data(data.name, eval=data.eval, seed=seed)
    if 0 < data.max_eval < len(held_out):
        chosen = rng_for(seed, "split", 1).permutation(len(held_out))[: data.max_eval]
        held_out = held_out.take(np.sort(chosen))
    _fits(experiment, train)
    shares = partition(
        train, clients=data.clients, how=data.partition, alpha=data.alpha,
        size_sigma=data.size_sigma, seed=seed,
    )  # fmt: skip

    adapted = _adapted(experiment, train)
    network = build_network(
        experiment, np.array([len(s) for s in shares], dtype=np.float64), **_bits(adapted.layout)
    )
    length = experiment.model.max_length
    clients = [tokenise(train.take(s), adapted.base, max_length=length) for s in shares]
    settings = LocalTraining(
        local_steps=training.local_steps,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        optimizer=training.optimizer,
        weight_decay=training.weight_decay,
        sketch=experiment.lora.sketch,
    )
    held_out_tokens = tokenise(held_out, adapted.base, max_length=length)
    return Work(
        layout=adapted.layout,
        initial_adapter=adapted.initial,
        train=make_trainer(adapted, clients, settings),
        evaluate=lambda adapter: evaluate(adapted, adapter, held_out_tokens),
        save=partial(save_adapter, adapted),
        network=network,
        fingerprint=_fingerprint(adapted.layout, train, held_out, shares),
    )


def model_payload(experiment: Experiment) -> tuple[float, float]:
    """Return the fixed bits and the bits per rank of an experiment's model and adapter."""
    train, _ = load_data(experiment.data.name, eval=experiment.data.eval, seed=experiment.seed)
    bits = _bits(_adapted(experiment, train).layout)
    return bits["fixed_bits"], bits["bits_per_rank"]


def _adapted(experiment: Experiment, train: Examples) -> AdaptedModel:
    model, lora = experiment.model, experiment.lora
    base = load_base(
        model.name,
        task=model.task,
        num_labels=None if train.label_names is None else len(train.label_names),
        dtype=model.dtype,
        layers=model.layers or None,
        pooling=model.pooling,
        quantization=None if model.quantization == "none" else model.quantization,
        seed=experiment.seed,
    )
    return attach_adapter(
        base, rank=lora.rank, alpha=lora.alpha, target_modules=lora.target_modules,
        seed=experiment.seed,
    )  # fmt: skip


def _bits(layout: AdapterLayout) -> dict[str, float]:
    """Message sizes as really encoded, header included."""
    per_rank = 32 * layout.values_per_rank
    fixed = 8 * encoded_bytes(layout, layout.rank) - layout.rank * per_rank
    return {"fixed_bits": float(fixed), "bits_per_rank": float(per_rank)}


def _fits(experiment: Experiment, train: Examples) -> None:
    """Check that the data is what the task needs."""
    labelled = train.label is not None
    if experiment.model.task == "classification" and not labelled:
        raise InputError(
            f"[data] name = {experiment.data.name!r} has no labels ({train.kind}); "
            "set [model] task = 'causal-lm'"
        )
    if experiment.model.task == "causal-lm" and labelled:
        raise InputError(
            f"[data] name = {experiment.data.name!r} has labels ({train.kind}); "
            "set [model] task = 'classification'"
        )


def _fingerprint(
    layout: AdapterLayout, train: Examples, held_out: Examples, shares: Sequence[np.ndarray]
) -> str:
    digest = hashlib.sha256(repr(layout).encode())
    for examples in (train, held_out):
        for column in (examples.text, examples.text_pair, examples.response):
            digest.update(repr(column).encode())
        digest.update(repr(None if examples.label is None else examples.label.tolist()).encode())
    for share in shares:
        digest.update(share.astype("<i8").tobytes() + b"|")
    return digest.hexdigest()
