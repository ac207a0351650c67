"""The methods `fedpace run` compares: who takes part, what is aggregated, how the server moves."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from fedpace.core.adapter import AdapterLayout
from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.core.profile import Clients, Floats
from fedpace.core.sketch import sketch_named
from fedpace.experiment.config import Experiment
from fedpace.experiment.privacy import privacy_limit, privacy_of
from fedpace.experiment.schedule import (
    beat_of,
    check_beat_keys,
    check_trace,
    has_to_wait,
    over_too_soon,
    with_schedule,
)
from fedpace.federation.aggregation import Aggregation, MethodContext
from fedpace.federation.hooks.clipping import clipping
from fedpace.federation.hooks.fedvarp import fedvarp
from fedpace.federation.hooks.hook import UpdateHook
from fedpace.federation.hooks.rounding import Shapes, rounding
from fedpace.federation.hooks.sparse import kept_shapes, sparse
from fedpace.federation.methods.ca2fl import ca2fl
from fedpace.federation.methods.fadas import fadas
from fedpace.federation.methods.fedasync import fedasync
from fedpace.federation.methods.fedbuff import fedbuff
from fedpace.federation.methods.fedit import fedit
from fedpace.federation.methods.ffa_lora import ffa_lora
from fedpace.federation.methods.flexlora import flexlora
from fedpace.federation.methods.flora import flora
from fedpace.federation.methods.hetlora import hetlora
from fedpace.federation.methods.sketched import sketched
from fedpace.federation.server_optimizer import ServerOptimizer, make_server_optimizer, server_sgd
from fedpace.planning.planner import PLANNERS, SCALED, plan, so_unused
from fedpace.wireless.network import Network, planning_clients


@dataclass(frozen=True, slots=True)
class Method:
    """One method."""

    planner: str | None
    """Who takes part, and ranks; None: the planner that the experiment names."""
    published: Callable[[MethodContext], Aggregation] | None = None
    """What is aggregated, with the plain average as the server's step, and a plan that stays. None:
    ours, with the sketch and the server optimiser of the experiment, and renewals if it asks."""
    server_optimizer: bool = False
    """A published method whose authors have Adam at the server: it takes the experiment's."""
    asynchronous: Callable[[MethodContext], tuple[Aggregation, ServerOptimizer]] | None = None
    """A published method with a server of its own that waits for nobody: what is aggregated, and
    the server's step."""
    one_rank: bool = False
    """Every client has the largest rank that all of them can hold."""
    sparse: bool = False
    """Clients send the largest of their changes alone."""


METHODS: dict[str, Method] = {
    "adaptive": Method(None),
    **{name: Method(name) for name in PLANNERS},
    # These papers sample uniformly. The first three know one rank, the others one by device.
    "fedit": Method("uniform", fedit, one_rank=True),
    "ffa-lora": Method("uniform", ffa_lora, one_rank=True),
    "flasc": Method("uniform", fedit, server_optimizer=True, one_rank=True, sparse=True),
    "hetlora": Method("fslora", hetlora),
    "flexlora": Method("fslora", flexlora),
    "flora": Method("fslora", flora),
    # As many as the cohort are busy at any time, drawn uniformly; one rank.
    "fedasync": Method(
        "uniform",
        asynchronous=lambda about: (
            fedasync(about.layout, about.options["server_learning_rate"]),
            server_sgd(1.0),
        ),
        one_rank=True,
    ),
    "fedbuff": Method(
        "uniform",
        asynchronous=lambda about: (
            fedbuff(about.layout, about.options["buffer_size"]),
            server_sgd(about.options["server_learning_rate"]),
        ),
        one_rank=True,
    ),
    "ca2fl": Method(
        "uniform",
        asynchronous=lambda about: (
            ca2fl(about.layout, about.options["buffer_size"], about.data_weight),
            server_sgd(about.options["server_learning_rate"]),
        ),
        one_rank=True,
    ),
    "fadas": Method(
        "uniform",
        asynchronous=lambda about: (
            fadas(
                about.layout, about.options["buffer_size"], about.options["server_learning_rate"]
            ),
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


def method_context(
    experiment: Experiment, layout: AdapterLayout, data_weight: Floats
) -> MethodContext:
    """Return what the methods of an experiment are built from."""
    sketch, options = sketch_named(experiment.lora.sketch), experiment.training.model_dump()
    return MethodContext(layout, sketch, data_weight, options)


def server_of(
    experiment: Experiment, method: str, context: MethodContext
) -> tuple[Aggregation, ServerOptimizer]:
    """Return what a method aggregates, without hooks, and the server's step along it."""
    entry, training = method_named(method), experiment.training
    if entry.asynchronous is not None:
        return entry.asynchronous(context)
    if entry.published is not None and not entry.server_optimizer:
        return entry.published(context), server_sgd(1.0)
    step = make_server_optimizer(training.server_optimizer, training.server_learning_rate)
    return (entry.published or sketched)(context), step


def hooks_of(
    experiment: Experiment, method: str, context: MethodContext, sent: AdapterLayout
) -> tuple[UpdateHook, ...]:
    """Return what is done to a method's updates, in the order in which a client does it.

    Args:
        experiment: says what is done.
        method: one name; server memory is for our own methods.
        context: of the method.
        sent: layout of what comes back.
    """
    entry, memory = method_named(method), experiment.training.server_memory
    ours = entry.published is None and entry.asynchronous is None
    hooks = [fedvarp(context, memory)] if ours and memory else []
    dtype, density = experiment.upload_dtype, experiment.lora.upload_density
    shapes: Shapes = sent.shapes
    if (privacy := privacy_of(experiment)) is not None:
        hooks.append(clipping(privacy, sent, context.sketch, dtype))
    if entry.sparse and density < 1:
        hooks.append(sparse(density, sent))
        shapes = partial(kept_shapes, density, sent)
    return (*hooks, *rounding(dtype, shapes))


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
    if section.max_bias:
        _check_bias(experiment)
    training, schedule = experiment.training, {}
    if training.schedule != "synchronous" and name == "exact" and can_overlap(experiment, method):
        schedule = {
            "schedule": training.schedule, "beat_seconds": training.beat_seconds,
            "max_bias": section.max_bias,
        }  # fmt: skip
    return {
        "planner": name,
        "q_min": section.q_min,
        "quantile": section.quantile,
        # An asynchronous server has no rounds that could be too long.
        "p95_limit_seconds": None
        if method_named(method).asynchronous
        else section.p95_limit_seconds,
        "cohort": section.cohort if name in SCALED else None,
        "max_participants": section.max_participants,
        "privacy": privacy_limit(experiment),
        **schedule,
    }


def _check_bias(experiment: Experiment) -> None:
    """Refuse a bias that no method could have; what has to wait is refused by its own words."""
    exact = [m for m in experiment.methods if planner_of(experiment, m) == "exact"]
    where, memory = (
        f"[planner] max_bias = {experiment.planner.max_bias:g}", experiment.training.server_memory,
    )  # fmt: skip
    if not exact:
        raise InputError(
            f"{where}: only the planner 'exact' plans rounds that overlap with a bias, and no "
            "method has it; leave it out, or add 'adaptive' to methods"
        )
    if experiment.training.schedule == "auto" and not any(
        can_overlap(experiment, method) for method in exact
    ):
        cause = f"[training] server_memory = {memory:g}" if memory else "[privacy]"
        raise InputError(f"{where}: with {cause} rounds wait for all; leave out one of both")


def can_overlap(experiment: Experiment, method: str) -> bool:
    """Say whether a method's rounds may overlap: ours, with nothing that waits for all."""
    entry, training = method_named(method), experiment.training
    ours = entry.published is None and entry.asynchronous is None
    return ours and not training.server_memory and privacy_of(experiment) is None


def check_schedule(experiment: Experiment, method: str) -> None:
    """Check, before anything is loaded or waited for, that a method can follow the schedule.

    Raises:
        InputError: it has to wait for all, or the beat is none that it could follow; or there is
            none, and a key for it.
    """
    check_beat_keys(experiment)
    _check_beat_is_used(experiment)
    entry, planned = method_named(method), "schedule" in planner_options(experiment, method)
    if experiment.training.schedule == "overlapping" and not planned and not entry.asynchronous:
        if planner_of(experiment, method) == "infocom22":  # draws its cohort
            raise has_to_wait("infocom22")
        beat_of(experiment, method, overlaps=entry.published is None)


def _check_beat_is_used(experiment: Experiment) -> None:
    """Refuse a beat under "auto" where nothing can overlap."""
    training, methods = experiment.training, experiment.methods
    if training.schedule != "auto" or any(_may_overlap(experiment, m) for m in methods):
        return
    for key in ("beat_seconds", "beat_rate_factor"):
        if (value := getattr(training, key)) is not None:
            raise InputError(
                f"[training] {key} = {value:g}: no method here ({', '.join(methods)}) can have "
                "rounds that overlap, with what else is asked for; leave it out "
                "(docs/methods.md, rounds that overlap)"
            )


def beats_would_be_guessed(experiment: Experiment) -> bool:
    """Say whether the planner may choose beats for devices that were drawn, not told.

    On the virtual clock what is drawn is what is there. Real clients compute as fast as they do,
    and a beat that was planned for others may end before any of them has answered.

    Args:
        experiment: as given; a beat or a bias in it asks for rounds that overlap.
    """
    training = experiment.training
    if training.schedule != "auto" or experiment.network.clients is not None:
        return False
    asked = experiment.planner.max_bias, training.beat_seconds, training.beat_rate_factor
    return not any(asked) and any(_may_overlap(experiment, m) for m in experiment.methods)


def _may_overlap(experiment: Experiment, method: str) -> bool:
    """Say whether "auto" may choose rounds that overlap for a method."""
    options = planner_options(experiment, method)
    held = options["quantile"] is not None or options["max_participants"] is not None
    busy = experiment.network.allocation == "work-conserving"
    return "schedule" in options and not held and busy


def make_plan(experiment: Experiment, network: Network, method: str) -> Plan:
    """Plan a method's sampling probabilities and ranks, from what is known before the run.

    Args:
        experiment: its [planner] is read.
        network: with the message sizes of the method.
        method: one name.
    """
    clients, options = planning_clients(network), planner_options(experiment, method)
    made = plan(clients, network.system, **options)
    if over_too_soon(experiment, made):
        waits = {"schedule": "synchronous", "beat_seconds": None, "max_bias": 0.0}
        made = plan(clients, network.system, **options | waits)
        why = "; rounds wait, as the run ends too soon for rounds that overlap"
        made = replace(made, verdict=made.verdict + why + _unused(experiment))
    elif options.get("schedule") == "auto" and made.beat_seconds is None:
        made = replace(made, verdict=made.verdict + _unused_factor(experiment, made))
    if method_named(method).one_rank and np.ptp(made.sketch_rank):
        least = np.full(len(clients), float(made.sketch_rank.min()))
        alike = Clients.from_columns(**{**clients.columns(), "max_rank": least})
        made = plan(alike, network.system, **options)
    entry = method_named(method)
    if entry.asynchronous is not None:
        # Whom it draws and at which rank; what was predicted is of rounds that wait.
        verdict = made.verdict
        if experiment.planner.p95_limit_seconds is not None:
            verdict += f"; the server waits for nobody, {so_unused(['p95_limit_seconds'])}"
        return replace(made, verdict=verdict, round_seconds=None, relative_rounds=np.nan,
                       objective_seconds=np.nan, quantile=None, quantile_seconds=np.nan,
                       updates_per_second=None, band_utilisation=np.nan, gain={},
                       binds={})  # fmt: skip
    overlaps = entry.published is None
    made = with_schedule(experiment, network, clients, method, made, overlaps=overlaps)
    check_trace(experiment, network, method, made)
    return made


def _unused(experiment: Experiment) -> str:
    """Name what is given for rounds that overlap and not used where rounds wait."""
    training = experiment.training
    given = {
        "beat_seconds": training.beat_seconds, "beat_rate_factor": training.beat_rate_factor,
        "max_bias": experiment.planner.max_bias,
    }  # fmt: skip
    names = [name for name, value in given.items() if value]
    return f", {so_unused(names)}" if names else ""


def _unused_factor(experiment: Experiment, made: Plan) -> str:
    """Name, where the planner has rounds wait, the one key for beats that it does not know."""
    if experiment.training.beat_rate_factor is None:
        return ""
    if made.verdict.endswith(" not used"):  # the planner's own words, of what it knows
        return ", nor is beat_rate_factor"
    return f"; rounds wait, {so_unused(['beat_rate_factor'])}"
