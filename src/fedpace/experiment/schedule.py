"""The beat of a plan whose rounds overlap."""

from dataclasses import replace

from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.experiment.config import Experiment
from fedpace.wireless.network import Network


def with_beat(
    experiment: Experiment, network: Network, method: str, made: Plan, *, overlaps: bool
) -> Plan:
    """Give a plan the beat that the experiment asks for.

    Args:
        experiment: its [training] is read.
        network: with the method's overhead.
        method: its name, for the error.
        made: a plan for rounds that wait; its q_n become chances of idle clients at a beat.
        overlaps: whether the method's aggregation can do without a barrier.

    Raises:
        InputError: the method has to wait for all, or the beat is none that it could follow.
    """
    training = experiment.training
    if training.schedule == "synchronous":
        return made
    if not overlaps or made.draws is not None or training.server_memory:
        why = " with server_memory" if training.server_memory else ""
        raise InputError(
            f"method {method!r}{why} has to wait for all who take part in a round; set [training] "
            "schedule = 'synchronous', or leave it out"
        )
    beat, overhead = training.beat_seconds, network.system.overhead_seconds
    if beat is None:
        raise InputError("[training] schedule = 'overlapping' needs beat_seconds; set it")
    if beat < overhead:
        raise InputError(
            f"[training] beat_seconds = {beat:g} is below [network] overhead_seconds = "
            f"{overhead:g}, which the server needs for every step; set a longer beat"
        )
    if experiment.planner.replan_every:
        raise InputError(
            f"[planner] replan_every = {experiment.planner.replan_every}: the noise scale is "
            "measured in rounds that wait; set it to 0, or schedule = 'synchronous'"
        )
    return replace(made, decision=replace(made.decision, beat_seconds=beat))
