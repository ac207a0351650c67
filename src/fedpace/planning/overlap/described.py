"""The best schedule of overlapping rounds as a plan, with its predictions."""

import numpy as np
from numpy.typing import NDArray

from fedpace.core.errors import InputError
from fedpace.core.plan import Decision, Plan, StalenessSeconds
from fedpace.core.profile import Floats
from fedpace.planning.overlap.fleet import Fleet, fleet_of
from fedpace.planning.overlap.objective import limit_seconds
from fedpace.planning.overlap.planner import OverlappingSchedule, overlapping
from fedpace.planning.solver.objective import Problem, rank_limit

__all__ = ["overlapping_plan"]

_LIMIT_TOLERANCE = 1e-6
"""Relative distance at which q counts as being at its limit."""
_SHORTEST_BEAT_ROUNDS = 0.25
"""Shortest beat, over the mean synchronous round."""
_LARGEST_USE = 0.98
"""Largest use of the band that is planned with."""


def overlapping_plan(
    problem: Problem,
    planner: str,
    beat_seconds: float | None = None,
    rounds: Plan | None = None,
    *,
    polish: bool = True,
) -> Plan:
    """Plan rounds that overlap.

    Args:
        problem: clients, system and limits.
        planner: the name that the plan bears.
        beat_seconds: D, s; None: planned.
        rounds: the synchronous plan, with its predictions, to compare with: its noise is that for
            which a server rate is tuned, and a quarter of its mean round the shortest beat: shorter
            ones promise a little more, and have not been measured.
        polish: as for `overlapping`.

    Returns:
        The plan. Its statistics have "delay_beats", "beat_noise" and "tuned_noise", which
        `server_rate_factor` asks for.

    Raises:
        InputError: a beat shorter than the server's overhead, or in which the band cannot carry
            the least that q_min asks for.
    """
    fleet = fleet_of(problem.clients, problem.system)
    if beat_seconds is not None:
        _check_beat(problem, fleet, beat_seconds)
    shortest = None
    if rounds is not None and rounds.round_seconds is not None:
        shortest = _SHORTEST_BEAT_ROUNDS * rounds.round_seconds.mean
    made = overlapping(problem, beat_seconds, shortest_seconds=shortest, polish=polish)
    rank = made.sketch_rank.astype(np.float64)
    statistics = dict(made.statistics) | {
        "delay_beats": made.cost.delay_beats, "beat_noise": made.cost.noise,
    }  # fmt: skip
    gain = {}
    if rounds is not None:
        kappa = problem.system.lora_rank / rounds.sketch_rank.astype(np.float64)
        asked = rounds.sampling_probability * fleet.availability
        statistics["tuned_noise"] = float(np.sum(fleet.noise * kappa / asked))
        faster = float(rounds.objective_seconds / made.cost.objective_seconds)
        gain = {"synchronous": faster}
        gain |= {name: value * faster for name, value in rounds.gain.items()}
    return Plan(
        planner,
        problem.clients.client_id.copy(),
        Decision(made.start_probability, made.sketch_rank, beat_seconds=float(made.beat_seconds)),
        made.verdict,
        relative_rounds=made.cost.relative_beats,
        objective_seconds=made.cost.objective_seconds,
        updates_per_second=made.law.update_rate(),
        staleness_seconds=StalenessSeconds(made.law.mean_age_seconds(), made.law.p95_age_seconds()),
        band_utilisation=float(made.law.utilisation),
        limit_seconds=limit_seconds(problem.clients, problem.system),
        gain=gain,
        binds=_binds(problem, fleet, made, rank),
        statistics=statistics,
    )


def _binds(
    problem: Problem, fleet: Fleet, made: OverlappingSchedule, rank: Floats
) -> dict[str, NDArray[np.bool_]]:
    memory = np.floor(problem.clients.max_rank)
    q, paid = made.start_probability, fleet.most_often(rank)
    binds = {
        "q at 1": q >= 1 - _LIMIT_TOLERANCE,
        "q at q_min": q <= problem.q_min * (1 + _LIMIT_TOLERANCE),
        "rank at memory": (rank == memory) & (memory < problem.system.lora_rank),
        "energy": made.law.chance >= paid * (1 - 1e-3),
    }
    return {name: clientwise for name, clientwise in binds.items() if clientwise.any()}


def _check_beat(problem: Problem, fleet: Fleet, beat_seconds: float) -> None:
    if beat_seconds < fleet.overhead_seconds:
        raise InputError(
            f"beat_seconds is {beat_seconds:g}, shorter than the {fleet.overhead_seconds:g} s that "
            "the server needs for each; give a longer beat or a smaller overhead_seconds"
        )
    rank = np.ones(len(fleet)) * np.minimum(rank_limit(problem), 1.0)
    alone = fleet.ready_seconds(rank) + fleet.work_seconds(rank) + fleet.lag_seconds(rank)
    age = np.maximum(np.ceil(alone / beat_seconds), 1.0)
    least = 1 / (age + 1 / (fleet.availability * problem.q_min) - 1)
    used = float(least @ fleet.work_seconds(rank)) / beat_seconds
    if used > _LARGEST_USE:
        raise InputError(
            f"beat_seconds is {beat_seconds:g}: with every client at q_min = {problem.q_min:g} the "
            f"uploads would take {used:.3g} of the band; give a longer beat, a lower q_min, or "
            "more bandwidth_hz"
        )
