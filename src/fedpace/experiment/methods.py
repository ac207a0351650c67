"""The methods `fedpace run` compares: who takes part, what is aggregated, how the server moves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpace.core.adapter import AdapterLayout
from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.core.profile import Clients, Floats
from fedpace.experiment.config import Experiment, TrainingSection
from fedpace.experiment.network import planning_clients
from fedpace.experiment.schedule import with_beat
from fedpace.federation.aggregation import Aggregation
from fedpace.federation.methods.ca2fl import ca2fl
from fedpace.federation.methods.fadas import fadas
from fedpace.federation.methods.fedasync import fedasync
from fedpace.federation.methods.fedbuff import fedbuff
from fedpace.federation.methods.fedit import fedit
from fedpace.federation.methods.ffa_lora import ffa_lora
from fedpace.federation.methods.flexlora import flexlora
from fedpace.federation.methods.flora import flora
from fedpace.federation.methods.hetlora import hetlora
from fedpace.federation.server_optimizer import ServerOptimizer, server_sgd
from fedpace.planning.planner import PLANNERS, SCALED, plan
from fedpace.wireless.network import Network


@dataclass(frozen=True, slots=True)
class Method:
    """One method."""

    planner: str | None
    """Who takes part, and ranks; None: the planner that the experiment names."""
    published: Callable[[AdapterLayout], Aggregation] | None = None
    """What is aggregated, with the plain average as the server's step, and a plan that stays. None:
    ours, with the sketch and the server optimiser of the experiment, and renewals if it asks."""
    asynchronous: Callable[[AdapterLayout, Floats, TrainingSection],
                           tuple[Aggregation, ServerOptimizer]] | None = None  # fmt: skip
    """A published method with a server of its own that waits for nobody: layout, data weights and
    [training] -> what is aggregated, and the server's step."""
    one_rank: bool = False
    """Every client has the largest rank that all of them can hold."""


METHODS: dict[str, Method] = {
    "adaptive": Method(None),
    **{name: Method(name) for name in PLANNERS},
    # These papers sample uniformly. FedIT and FFA-LoRA know one rank, the others one by device.
    "fedit": Method("uniform", fedit, one_rank=True),
    "ffa-lora": Method("uniform", ffa_lora, one_rank=True),
    "hetlora": Method("fslora", hetlora),
    "flexlora": Method("fslora", flexlora),
    "flora": Method("fslora", flora),
    # As many as the cohort are busy at any time, drawn uniformly; one rank.
    "fedasync": Method(
        "uniform",
        asynchronous=lambda layout, share, training: (
            fedasync(layout, training.server_learning_rate),
            server_sgd(1.0),
        ),
        one_rank=True,
    ),
    "fedbuff": Method(
        "uniform",
        asynchronous=lambda layout, share, training: (
            fedbuff(layout, training.buffer_size),
            server_sgd(training.server_learning_rate),
        ),
        one_rank=True,
    ),
    "ca2fl": Method(
        "uniform",
        asynchronous=lambda layout, share, training: (
            ca2fl(layout, training.buffer_size, share),
            server_sgd(training.server_learning_rate),
        ),
        one_rank=True,
    ),
    "fadas": Method(
        "uniform",
        asynchronous=lambda layout, share, training: (
            fadas(layout, training.buffer_size, training.server_learning_rate),
            server_sgd(1.0),
        ),
        one_rank=True,
    ),
}


def method_named(name: str) -> Method:
    """Return the method of that name.

    Raises:
        InputError: there is none; the message lists all.
    """
    if name not in METHODS:
        raise InputError(f"method {name!r} is unknown; choose of {', '.join(METHODS)}")
    return METHODS[name]


def planner_of(experiment: Experiment, method: str) -> str:
    """Return the planner a method uses.

    Raises:
        InputError: no such method or planner; the message lists all.
    """
    name = method_named(method).planner or experiment.planner.name
    if name not in PLANNERS:
        raise InputError(f"[planner] name = {name!r}: choose one of {', '.join(PLANNERS)}")
    return name


def plans_by_data_alone(method: str, *, cohort_held: bool) -> bool:
    """Say whether a method's plan is the same on every network, at every speed of the devices.

    Of memories of the same size: they limit the ranks.
    """
    planner = method_named(method).planner
    return planner == "full" or (planner in ("uniform", "weighted") and cohort_held)


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
    """Plan a method's sampling probabilities and ranks, from what is known before the run.

    Args:
        experiment: its [planner] is read.
        network: with the message sizes of the method.
        method: one name.
    """
    clients, options = planning_clients(network), planner_options(experiment, method)
    made = plan(clients, network.system, **options)
    if method_named(method).one_rank and np.ptp(made.sketch_rank):
        least = np.full(len(clients), float(made.sketch_rank.min()))
        alike = Clients.from_columns(**{**clients.columns(), "max_rank": least})
        made = plan(alike, network.system, **options)
    entry = method_named(method)
    if entry.asynchronous is not None:
        return made
    return with_beat(experiment, network, method, made, overlaps=entry.published is None)
