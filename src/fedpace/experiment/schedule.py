"""The schedule of a plan: rounds that wait for all, or beats that wait for nobody."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.core.profile import Clients, System
from fedpace.experiment.config import Experiment
from fedpace.planning.overlap.described import at_beats
from fedpace.planning.planner import plan
from fedpace.planning.round_time.upper_bound import solo_seconds
from fedpace.wireless.gains import TraceGains
from fedpace.wireless.network import Network

logger = logging.getLogger(__name__)

_FEWEST_AGES = 5.0
"""A run of beats that is shorter than so many times the age of its late updates is not begun where
the planner is free: the first updates of slow clients come when much of it is over, which takes
away what the least promise of `enough_gain` gives."""


def check_beat_keys(experiment: Experiment) -> None:
    """Refuse what is for beats where there are none.

    Raises:
        InputError: names the key, its value and what to change.
    """
    training, max_bias = experiment.training, experiment.planner.max_bias
    if training.schedule != "synchronous":
        return
    for key in ("beat_seconds", "beat_rate_factor"):
        value = getattr(training, key)
        if value is not None:
            raise InputError(
                f"[training] {key} = {value:g}: synchronous rounds have no beat; leave it out, or "
                "set schedule = 'overlapping' or 'auto'"
            )
    if max_bias:
        raise InputError(
            f"[planner] max_bias = {max_bias:g}: only rounds that overlap are planned with a bias; "
            "leave it out, or set [training] schedule = 'overlapping' or 'auto'"
        )


def with_schedule(
    experiment: Experiment,
    network: Network,
    clients: Clients,
    method: str,
    made: Plan,
    *,
    overlaps: bool,
) -> Plan:
    """Give a plan the schedule that the experiment asks for.

    Args:
        experiment: its [training] and [planner] are read.
        network: with the method's message sizes.
        clients: as a planner sees them.
        method: its name, for the error.
        made: the method's plan.
        overlaps: whether the method's aggregation can do without a barrier.

    Returns:
        With "overlapping" the plan whose q_n are the chances of idle clients at a beat, and what
        the law of the queue says of it; as it is if it was planned for beats.

    Raises:
        InputError: the method has to wait for all, or the beat is none that it could follow.
    """
    training = experiment.training
    if training.schedule != "overlapping":
        return made
    if training.beat_seconds is not None:
        _check_span(training.beat_seconds, training.rounds, clients, network.system)
    if made.schedule == "overlapping":
        return made
    if made.draws is not None:
        raise has_to_wait(made.planner)
    beat = beat_of(experiment, method, overlaps=overlaps)
    return at_beats(made, clients, network.system, beat)


def over_too_soon(experiment: Experiment, made: Plan) -> bool:
    """Say whether a run is too short for the beats that the planner chose where it was free.

    Args:
        experiment: its [training] is read.
        made: what the planner chose.
    """
    if experiment.training.schedule != "auto" or made.beat_seconds is None:
        return False
    lasts = last_step(experiment, made) * made.beat_seconds
    return made.staleness_seconds is not None and lasts < _FEWEST_AGES * made.staleness_seconds.p95


def of_as_much_work(made: Plan, before: Plan) -> Plan:
    """Return a later plan of a run in which a round of the experiment is as many beats as before.

    Args:
        made: the later plan.
        before: the one in force.
    """
    if made.beat_seconds is None:
        return made
    kept = {k: v for k, v in before.statistics.items() if k == "beats_per_round"}
    return replace(made, statistics={**made.statistics, **kept})


def steps_per_round(experiment: Experiment, plan: Plan) -> float:
    """Return how many steps of the server stand for one of the experiment's rounds.

    1, but where the planner was free to choose and chose beats: then as many as make the progress
    of a round that waits, so that `rounds` and `eval_every` mean the same work either way.

    Args:
        experiment: its [training] is read.
        plan: what is in force.
    """
    if experiment.training.schedule != "auto":
        return 1.0
    return plan.statistics.get("beats_per_round", 1.0)


def last_step(experiment: Experiment, plan: Plan) -> int:
    """Return how many steps the server makes at most.

    Args:
        experiment: its [training] is read.
        plan: what is in force.
    """
    return int(np.ceil(experiment.training.rounds * steps_per_round(experiment, plan)))


def as_begun(experiment: Experiment, plan: Plan) -> Experiment:
    """Return the experiment with the schedule that "auto" chose, for plans that come later.

    What is underway, and what the rounds of the experiment are counted in, hang on the schedule.

    Args:
        experiment: as given.
        plan: in force.
    """
    if experiment.training.schedule != "auto":
        return experiment
    chosen: dict[str, Any] = {"schedule": plan.schedule}
    planner = experiment.planner
    if plan.schedule == "synchronous":
        chosen |= {"beat_seconds": None, "beat_rate_factor": None}
        planner = planner.model_copy(update={"max_bias": 0.0})
    training = experiment.training.model_copy(update=chosen)
    return experiment.model_copy(update={"training": training, "planner": planner})


def replanned(
    options: Mapping[str, Any],
    clients: Clients,
    system: System,
    *,
    start: Plan | None,
    predict: bool,
) -> Plan:
    """Plan again while a run goes on.

    Args:
        options: what `plan` is told besides, with the schedule that was chosen at the beginning.
        clients: as they are known now.
        system: as it is known now.
        start: the plan in force, or None.
        predict: as for `plan`.
    """
    told = dict(options)
    if told.get("max_bias") and system.noise_ratio == 0:  # measured: nobody differs from another
        told["max_bias"] = 0.0
    made = plan(clients, system, **told, start=start, predict=predict)
    return made if start is None else of_as_much_work(made, start)


def check_trace(experiment: Experiment, network: Network, method: str, made: Plan) -> None:
    """Refuse a run that by its plan outlasts the trace that its links follow.

    One that ends at its target may well be shorter, and is warned of.

    Args:
        experiment: its [training] is read.
        network: with what the links follow, if they do.
        method: whose plan it is.
        made: the plan.

    Raises:
        InputError: names the trace, both times and what to change.
    """
    gains, waits = network.gains, made.round_seconds
    step = made.beat_seconds or (None if waits is None else waits.mean)
    if not isinstance(gains, TraceGains) or step is None:
        return
    trace, lasts = gains.trace, last_step(experiment, made) * step
    if trace.length_seconds >= lasts:
        return
    training = experiment.training
    text = (
        f"[network] gain_trace = {trace.source!r} lasts {trace.length_seconds:g} s, and "
        f"{training.rounds} rounds of {method!r} take {lasts:.4g} s by its plan; give a longer "
        "trace, or fewer rounds"
    )
    if training.target is None:
        raise InputError(text)
    logger.warning("%s; unless the target comes sooner, the run breaks off", text)


def beat_of(experiment: Experiment, method: str, *, overlaps: bool) -> float:
    """Return the beat that the experiment gives, if the method and all else can follow it.

    Args:
        experiment: with [training] schedule = "overlapping".
        method: its name, for the error.
        overlaps: whether the method's aggregation can do without a barrier.

    Raises:
        InputError: the method has to wait for all, or the beat is none that it could follow.
    """
    training, section = experiment.training, experiment.network
    if not overlaps:
        raise has_to_wait(method)
    if training.server_memory:
        raise has_to_wait(method, f" with server_memory = {training.server_memory:g}")
    if experiment.planner.replan_every:
        raise InputError(
            f"[planner] replan_every = {experiment.planner.replan_every}: of rounds that overlap "
            "only the planner 'exact' renews its plan; set it to 0, or schedule = 'synchronous'"
        )
    beat, overhead = training.beat_seconds, section.overhead_seconds
    if beat is None:
        planner = experiment.planner.name if method == "adaptive" else method
        raise InputError(
            f"[training] schedule = 'overlapping' needs beat_seconds for {planner!r}: only "
            "the planner 'exact' plans one; set it, or schedule = 'auto', with which others wait"
        )
    if beat < overhead:
        raise InputError(
            f"[training] beat_seconds = {beat:g} is below [network] overhead_seconds = "
            f"{overhead:g}, which the server needs for every step; set a longer beat"
        )
    if section.allocation != "work-conserving":
        raise InputError(
            f"[network] allocation = {section.allocation!r} divides the band of a round that waits "
            "for all; with schedule = 'overlapping' set 'work-conserving'"
        )
    return beat


def has_to_wait(method: str, why: str = "") -> InputError:
    """Return what a method is refused with whose rounds cannot overlap.

    Args:
        method: its name.
        why: what makes it wait, where that is not the method itself.
    """
    return InputError(
        f"method {method!r}{why} has to wait for all who take part in a round; set [training] "
        "schedule = 'synchronous', or leave it out"
    )


def _check_span(beat: float, beats: int, clients: Clients, system: System) -> None:
    """Refuse beats that are over before anything arrives, and one that outlasts the whole run."""
    most = np.floor(np.minimum(clients.max_rank, system.lora_rank))
    alone = system.overhead_seconds + solo_seconds(clients, system, most)
    soonest, slowest = float(alone.min()), float(alone.max())
    if beats * beat < soonest:
        raise InputError(
            f"[training] beat_seconds = {beat:g}: the run ([training] rounds = {beats}) is over "
            f"before the first update can arrive, after {soonest:.4g} s; set a longer beat or more "
            "rounds"
        )
    if beat > beats * slowest:
        raise InputError(
            f"[training] beat_seconds = {beat:g}: one beat would last longer than a run of {beats} "
            f"rounds that wait for the slowest client ({slowest:.4g} s each); set a shorter beat"
        )
