"""The schedule of a plan: rounds that wait for all, or beats that wait for nobody."""

from dataclasses import replace

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.plan import Plan, StalenessSeconds
from fedpace.core.profile import Clients
from fedpace.experiment.config import Experiment
from fedpace.planning.overlap.law import queue_law
from fedpace.planning.overlap.step import server_rate_factor
from fedpace.planning.solver.objective import noise_weight
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.latency import start_seconds, upload_bits
from fedpace.wireless.network import Network


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
    if experiment.training.schedule != "overlapping" or made.schedule == "overlapping":
        return made
    if made.draws is not None:
        raise _has_to_wait(method)
    return _described(network, clients, made, beat_of(experiment, method, overlaps=overlaps))


def rate_factor(experiment: Experiment, plan: Plan) -> float:
    """Return what the server's rate is multiplied by: 1 in rounds that wait.

    Args:
        experiment: its [training] is read.
        plan: what is in force.
    """
    training, known = experiment.training, plan.statistics
    if plan.beat_seconds is None:
        return 1.0
    if training.beat_rate_factor is not None:
        return training.beat_rate_factor
    return server_rate_factor(
        training.server_optimizer, known["beat_noise"], known["tuned_noise"],
        delay_beats=known["delay_beats"],
    )  # fmt: skip


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
        raise _has_to_wait(method)
    if training.server_memory:
        raise _has_to_wait(method, " with server_memory")
    beat, overhead = training.beat_seconds, section.overhead_seconds
    if beat is None:
        raise InputError(
            "[training] schedule = 'overlapping' needs beat_seconds; set it (only the planner "
            "'exact' plans one)"
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
    if experiment.planner.replan_every:
        raise InputError(
            f"[planner] replan_every = {experiment.planner.replan_every}: the noise scale is "
            "measured in rounds that wait; set it to 0, or schedule = 'synchronous'"
        )
    return beat


def _has_to_wait(method: str, why: str = "") -> InputError:
    return InputError(
        f"method {method!r}{why} has to wait for all who take part in a round; set [training] "
        "schedule = 'synchronous', or leave it out"
    )


def _described(network: Network, clients: Clients, made: Plan, beat: float) -> Plan:
    """The plan with a beat, and its queue."""
    system, rank = network.system, made.sketch_rank.astype(np.float64)
    bits = upload_bits(system, rank)
    whole = bits / rate_bps(system.bandwidth_hz, **uplink(clients))
    width = np.minimum(clients.max_bandwidth_hz, system.bandwidth_hz)
    law = queue_law(
        made.sampling_probability,
        system.overhead_seconds + start_seconds(clients, system, rank),
        whole,
        beat,
        bits / rate_bps(width, **uplink(clients)) - whole,
        clients.availability,
    )
    noise = noise_weight(clients, system) * system.lora_rank / rank
    return replace(
        made,
        decision=replace(made.decision, beat_seconds=beat),
        round_seconds=None,
        relative_rounds=np.nan,
        objective_seconds=np.nan,
        updates_per_second=law.update_rate(),
        staleness_seconds=StalenessSeconds(law.mean_age_seconds(), law.p95_age_seconds()),
        band_utilisation=law.utilisation,
        gain={},
        statistics={
            "delay_beats": float(clients.data_weight @ (law.age_beats - 1)),
            "beat_noise": float(np.sum(noise * clients.availability / law.chance)),
            "tuned_noise": float(np.sum(noise / made.sampling_probability)),
        },
    )
