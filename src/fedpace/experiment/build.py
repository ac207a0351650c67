"""From an experiment to live objects: data, model, trainer, evaluation, methods."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from fedpace.core.adapter import ROLES, Adapter, AdapterLayout, Role
from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.core.profile import Floats
from fedpace.core.rng import rng_for
from fedpace.core.sketch import RESIDUAL, Sketch
from fedpace.core.target import Target
from fedpace.data.load import load_data
from fedpace.engines.exchange import Exchange
from fedpace.experiment.config import Experiment
from fedpace.experiment.dealing import dealt
from fedpace.experiment.evaluation_cost import Reading, reading
from fedpace.experiment.fingerprint import work_fingerprint
from fedpace.experiment.interview import Interview
from fedpace.experiment.message_sizes import first_network, sending
from fedpace.experiment.methods import (
    check_schedule,
    hooks_of,
    method_context,
    server_of,
)
from fedpace.experiment.privacy import check_privacy
from fedpace.experiment.server_rate import check_decay
from fedpace.federation.aggregation import Aggregation
from fedpace.federation.engine import Train
from fedpace.federation.hooks.hook import hooked
from fedpace.federation.server_optimizer import ServerOptimizer
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
from fedpace.lora.answers import known
from fedpace.lora.card import describe_adapter
from fedpace.lora.head import class_order
from fedpace.lora.local_training import ClientExamples
from fedpace.lora.model import stated_classes
from fedpace.lora.start import load_start
from fedpace.lora.tasks import concatenate
from fedpace.lora.tokens import TokenisedExamples
from fedpace.lora.trial import tried
from fedpace.wireless.network import Network

_NONE_KNOWN: Floats = np.empty(0)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What all methods of an experiment share: the same work."""

    layout: AdapterLayout
    initial_adapter: Adapter
    make_train: Callable[[Sketch, tuple[Role, ...]], Any]
    """How k of r components are trained, and what is -> the trainer of all clients."""
    evaluate: Callable[[Adapter], dict[str, float]]
    """A global adapter -> "loss" and, for classification, "accuracy" on held-out data."""
    save: Callable[[Adapter, Path], None]
    """Write a global adapter in PEFT's format."""
    network: Network
    fingerprint: Mapping[str, str]
    """A hash of each thing that a resumed run must find again, by what it is."""
    clients: ClientExamples = ()
    """Each client's examples as token ids; none where they are elsewhere."""
    tokens: Mapping[str, Any] | None = None
    """What `max_length` cuts of the training examples; None where they are elsewhere."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What who uses the adapter must know of the model: its task, classes, pooling, layers."""
    describe: Callable[[Path], None] = lambda folder: None
    """Say in the folder of a saved adapter how it is used."""
    interview: Interview | None = None
    """What a language model is asked before and after its training."""
    reading: Reading | None = None
    """What training and evaluation read; None where the clients are elsewhere."""
    request_bits: tuple[float, float] = (0.0, 0.0)
    """Bits about each message beside the message itself, up and down."""


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """One method on that work."""

    method: str
    aggregation: Aggregation
    """With the hooks around it."""
    train: Train
    exchange: Exchange
    """What travels, and how."""
    network: Network
    """With the method's message sizes, and what goes with them."""
    server_optimizer: ServerOptimizer


def set_up(
    experiment: Experiment,
    work: Work,
    method: str,
    *,
    server_optimizer: ServerOptimizer | None = None,
) -> Setup:
    """Set a method up.

    Args:
        experiment: its sketch and server optimiser are those of our own methods.
        work: what `build_work` made of it.
        method: one name.
        server_optimizer: in place of the experiment's, or of a published method's average.
    """
    share = work.network.clients.data_weight
    exchange = make_exchange(experiment, method, work.layout, work.initial_adapter, share)
    aggregation = exchange.aggregation
    optimizer = server_of(experiment, method, method_context(experiment, work.layout, share))[1]
    return Setup(
        method=method,
        aggregation=hooked(aggregation, exchange.hooks),
        train=work.make_train(aggregation.sketch, aggregation.trained),
        exchange=exchange,
        network=sending(work.network, exchange, work.request_bits),
        server_optimizer=server_optimizer or optimizer,
    )


def make_exchange(
    experiment: Experiment,
    method: str,
    layout: AdapterLayout,
    initial: Adapter,
    data_weight: Floats = _NONE_KNOWN,
) -> Exchange:
    """Return what both ends of a method must agree on.

    Args:
        experiment: the same at both ends.
        method: one name.
        layout: of the adapter.
        initial: the adapter before the first round.
        data_weight: a_n, shape (N,); a client leaves it out.
    """
    context = method_context(experiment, layout, data_weight)
    aggregation, _ = server_of(experiment, method, context)
    hooks = hooks_of(experiment, method, context, layout.only(aggregation.trained))
    return Exchange(layout, initial, aggregation, hooks)


def network_of(experiment: Experiment, work: Work, setup: Setup) -> Network:
    """Draw the network that an experiment describes, for a method that is set up on that work."""
    network = first_network(experiment, work.layout, work.network.clients.data_weight)
    return sending(network, setup.exchange, work.request_bits)


def build_work(experiment: Experiment) -> Work:
    """Load model and data, deal the data to the clients, draw the network.

    Raises:
        InputError: something in the experiment does not fit; nothing has been written.
    """
    train, held_out = examples_of(experiment)
    shares = dealt(experiment, train)
    adapted = build_model(experiment, train.label_names)
    clients = [tokenised(experiment, train.take(s), adapted) for s in shares]
    cuts = tried(adapted, concatenate(clients), experiment.model.max_length)
    logger.info("%s", cuts.told())
    evaluated = tokenised(experiment, held_out, adapted)
    network = first_network(experiment, adapted.layout, [len(s) for s in shares])
    return Work(
        layout=adapted.layout,
        initial_adapter=adapted.initial,
        make_train=trainers(experiment, adapted, clients),
        evaluate=lambda adapter: evaluate(adapted, adapter, evaluated),
        save=partial(save_adapter, adapted),
        network=network,
        reading=reading(clients, evaluated),
        fingerprint=work_fingerprint(
            adapted,
            [train, held_out],
            shares,
            clients,
            evaluated=evaluated,
            gains=network.gains,
            started=experiment.lora.start_from is not None,
        ),
        facts=(facts := model_facts(experiment, train.label_names)),
        clients=clients,
        tokens=cuts.to_json(),
        describe=partial(describe_adapter, adapted, facts),
        interview=interview_with(experiment, adapted, held_out),
    )


def check(experiment: Experiment) -> None:
    """Check what can be checked before model and data are loaded.

    Raises:
        InputError: a method, a planner or a target does not fit.
    """
    check_privacy(experiment)
    for method in experiment.methods:
        check_schedule(experiment, method)
        check_decay(experiment, method)
    known(experiment.evaluation.metrics)
    if experiment.training.target is not None:
        target = Target.parse(experiment.training.target)
        if target.metric == "accuracy" and experiment.model.task != "classification":
            raise InputError(
                f"[training] target = {str(target)!r}: a causal-lm task has no accuracy; "
                "set a target on the loss"
            )


def examples_of(
    experiment: Experiment, *, train_elsewhere: bool = False
) -> tuple[Examples, Examples]:
    """Load training and held-out examples and check that the model's task can use them.

    A server, whose clients train elsewhere, needs only what it evaluates on.
    """
    data = experiment.data
    train, held_out = load_data(
        data.name, eval=data.eval, seed=experiment.seed, train_elsewhere=train_elsewhere
    )
    if 0 < data.max_eval < len(held_out):
        chosen = rng_for(experiment.seed, "split", 1).permutation(len(held_out))[: data.max_eval]
        held_out = held_out.take(np.sort(chosen))
    _fits(experiment, train)
    if train.label_names is None or experiment.model.pooling == "mean":
        return train, held_out
    # A head that is kept has its own order of the classes.
    model = experiment.model
    stated = stated_classes(model.name, trust_remote_code=model.trust_remote_code)
    order = class_order(train.label_names, stated, model.name)
    return train.renumbered(order), held_out.renumbered(order)


def trainers(
    experiment: Experiment,
    adapted: AdaptedModel,
    clients: ClientExamples,
    *,
    stacked: bool = True,
    stepped: Callable[[int], None] = lambda steps: None,
) -> Callable[[Sketch, tuple[Role, ...]], Train]:
    """Return what makes a trainer of these clients: how k of r are trained, and what is."""

    @cache  # a trainer tries itself out on the model
    def make_train(sketch: Sketch, trained: tuple[Role, ...]) -> Train:
        settings = local_training(experiment, sketch, trained)
        return make_trainer(adapted, clients, settings, stacked=stacked, stepped=stepped)

    return make_train


def local_training(
    experiment: Experiment, sketch: Sketch = RESIDUAL, trained: tuple[Role, ...] = ROLES
) -> LocalTraining:
    """Return what [training] says a client does in a round."""
    training = experiment.training
    return LocalTraining(
        local_steps=training.local_steps,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        optimizer=training.optimizer,
        weight_decay=training.weight_decay,
        dropout=experiment.lora.dropout,
        gradient_checkpointing=training.gradient_checkpointing,
        sketch=sketch,
        trained=trained,
    )


def tokenised(
    experiment: Experiment, examples: Examples, adapted: AdaptedModel
) -> TokenisedExamples:
    """Turn examples into token ids as the experiment says."""
    return tokenise(
        examples,
        adapted.base,
        max_length=experiment.model.max_length,
        chat_template=experiment.data.chat_template,
        loss_on=experiment.data.loss_on,
    )


def interview_with(
    experiment: Experiment, adapted: AdaptedModel, held_out: Examples
) -> Interview | None:
    """Return the questions to a language model; None where there is nothing to ask."""
    section = experiment.evaluation
    asked = section.samples > 0 or bool(section.metrics)
    if not asked or held_out.kind not in ("instruct", "chat"):
        return None
    return Interview(experiment, adapted, held_out)


def planned_network(experiment: Experiment) -> Network:
    """Draw the network on which a run plans for "adaptive"; no example is tokenised."""
    train, _ = examples_of(experiment)
    examples = [len(rows) for rows in dealt(experiment, train)]
    adapted = build_model(experiment, train.label_names)
    exchange = make_exchange(experiment, "adaptive", adapted.layout, adapted.initial)
    return sending(first_network(experiment, adapted.layout, examples), exchange)


def build_model(experiment: Experiment, label_names: Sequence[str] | None) -> AdaptedModel:
    """Load the base model and attach the adapter."""
    model, lora = experiment.model, experiment.lora
    base = load_base(
        model.name,
        task=model.task,
        num_labels=None if label_names is None else len(label_names),
        dtype=model.dtype,
        layers=model.layers or None,
        pooling=model.pooling,
        quantization=None if model.quantization == "none" else model.quantization,
        attention=model.attention,
        trust_remote_code=model.trust_remote_code,
        seed=experiment.seed,
    )
    adapted = attach_adapter(
        base, rank=lora.rank, alpha=lora.alpha, target_modules=lora.target_modules,
        modules_to_save=lora.modules_to_save, use_rslora=lora.use_rslora,
        init_lora_weights=lora.init_lora_weights, dropout=lora.dropout, seed=experiment.seed,
    )  # fmt: skip
    if lora.start_from is None:
        return adapted
    return replace(adapted, initial=load_start(adapted, lora.start_from))


def model_facts(experiment: Experiment, label_names: Sequence[str] | None) -> dict[str, Any]:
    """Return what who uses the adapter must know of the model."""
    model = experiment.model
    return {
        "name": model.name,
        "trust_remote_code": model.trust_remote_code,
        "task": model.task,
        "label_names": None if label_names is None else list(label_names),
        "pooling": model.pooling if model.task == "classification" else None,
        "layers": model.layers or None,
        "max_length": model.max_length,
    }


def _fits(experiment: Experiment, train: Examples) -> None:
    """Check that the data is what the task needs."""
    labelled = train.label is not None
    if experiment.model.task == "classification" and not labelled:
        raise InputError(
            f"[data] name = {experiment.data.name!r} has no column 'label' (its examples are of "
            f"kind {train.kind!r}); name the column of the classes so, or set [model] task = "
            "'causal-lm'"
        )
    if experiment.model.task == "causal-lm" and labelled:
        raise InputError(
            f"[data] name = {experiment.data.name!r} has labels ({train.kind}); "
            "set [model] task = 'classification'"
        )
