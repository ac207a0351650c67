"""Schedules of overlapping rounds as plans, with their predictions."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedpace.core.errors import InputError
from fedpace.core.plan import Decision, Plan, StalenessSeconds
from fedpace.core.profile import Clients, Floats, System
from fedpace.planning.overlap.bias import Biased, bias_if_alike, bias_of, overlapping_with_bias
from fedpace.planning.overlap.fleet import Fleet, fleet_of
from fedpace.planning.overlap.law import QueueLaw
from fedpace.planning.overlap.objective import Cost, limit_seconds, schedule_cost
from fedpace.planning.overlap.schedule import OverlappingSchedule, scheduled
from fedpace.planning.overlap.step import THETA
from fedpace.planning.solver.objective import Problem, rank_limit

__all__ = ["at_beats", "beats_seconds", "overlapping_plan"]

_LIMIT_TOLERANCE = 1e-6
"""Relative distance at which q counts as being at its limit."""
_LARGEST_USE = 0.98
"""Largest use of the band that is planned with."""
_MOST_BEATS = 10**5
"""Beats that an update may take; its law is computed beat by beat."""


def overlapping_plan(
    problem: Problem,
    planner: str,
    beat_seconds: float | None = None,
    rounds: Plan | None = None,
    *,
    max_bias: float = 0.0,
    polish: bool = True,
) -> Plan:
    """Plan rounds that overlap.

    Args:
        problem: clients, system and limits.
        planner: the name that the plan bears.
        beat_seconds: D, s; None: planned.
        rounds: the synchronous plan, with its predictions, to compare with: its noise is that for
            which a server rate is tuned, and its mean round is what `overlapping` asks for.
        max_bias: largest bias, as for `overlapping_with_bias`.
        polish: as for `overlapping`.

    Returns:
        The plan; all that is said of it is with its `aggregation_weight`, where it has one. Its
        statistics have "bias" and "bias_if_alike" then, and always "delay_beats", "beat_noise" and
        "tuned_noise", which `server_rate_factor` asks for, and "beats_per_round", how many beats
        make as much progress as a round that waits.

    Raises:
        InputError: a beat shorter than the server's overhead, or in which the band cannot carry
            the least that q_min asks for.
    """
    waits = None if rounds is None else rounds.round_seconds
    round_seconds = None if waits is None else waits.mean
    fleet = fleet_of(problem.clients, problem.system, round_seconds=round_seconds)
    if beat_seconds is not None:
        _check_beat(problem, fleet, beat_seconds)
    found = overlapping_with_bias(
        problem, max_bias, beat_seconds, round_seconds=round_seconds, polish=polish
    )
    made = found.schedule
    least = limit_seconds(problem.clients, problem.system, weight=found.weight) / (1 - found.bias)
    plan = Plan(
        planner,
        problem.clients.client_id.copy(),
        Decision(made.start_probability, made.sketch_rank, aggregation_weight=found.weight),
        made.verdict + _leaning(problem.clients, found),
        limit_seconds=least,
        binds=_binds(problem, fleet, made, made.sketch_rank.astype(np.float64)),
        statistics={**made.statistics, **_bias_statistics(fleet, found)},
    )
    if rounds is None:
        return _stated(plan, made.law, made.cost)
    beats = {"beats_per_round": made.cost.relative_beats / rounds.relative_rounds}
    plan = replace(plan, statistics={**plan.statistics, **beats})
    faster = float(rounds.objective_seconds / made.cost.objective_seconds)
    gain = {"synchronous": faster}
    gain |= {name: value * faster for name, value in rounds.gain.items()}
    if made.verdict.startswith("infeasible"):
        gain = {}
    return _stated(replace(plan, gain=gain), made.law, made.cost, _round_noise(fleet, rounds))


def beats_seconds(plan: Plan, clients: Clients, system: System, max_bias: float = 1.0) -> float:
    """Return the predicted time of a plan of rounds that overlap, by what is now known, s.

    Args:
        plan: with its beat, and its `aggregation_weight` where it has one.
        clients: as they are known now.
        system: as it is known now.
        max_bias: largest bias that is allowed.

    Returns:
        Comparable with `objective_seconds` of a plan for these clients and system; inf where the
        bias is by now above what is allowed.
    """
    assert plan.beat_seconds is not None
    weight = plan.aggregation_weight
    bias = 0.0 if weight is None else bias_of(fleet_of(clients, system), weight)
    if bias >= 1 or bias > max_bias * (1 + 1e-9):
        return np.inf
    fleet, rank = fleet_of(clients, system, weight), plan.sketch_rank.astype(np.float64)
    made = scheduled(fleet, plan.sampling_probability, rank, plan.beat_seconds, THETA)
    return made.cost.objective_seconds / (1 - bias)


def at_beats(rounds: Plan, clients: Clients, system: System, beat_seconds: float) -> Plan:
    """Return a plan of rounds that wait as it is when followed at beats.

    Args:
        rounds: its q_n become the chances of idle clients to start at a beat.
        clients: as a planner sees them.
        system: what they share; its band never idles.
        beat_seconds: D, s.

    Returns:
        The plan, with what is predicted of it; compared with nothing. The verdict says where more
        is asked than the band carries.

    Raises:
        InputError: a band that cannot carry what is started.
    """
    rank = rounds.sketch_rank.astype(np.float64)
    cost, law = schedule_cost(rounds.sampling_probability, rank, beat_seconds, clients, system)
    noise = _round_noise(fleet_of(clients, system), rounds)
    full = law.utilisation > _LARGEST_USE * (1 - 1e-3)
    why = "; more is asked at a beat than the band carries, so updates wait for it" if full else ""
    bare = replace(
        rounds, round_seconds=None, quantile=None, quantile_seconds=np.nan, gain={}, statistics={},
        verdict=rounds.verdict + why,
    )  # fmt: skip
    return _stated(bare, law, cost, noise)


def _leaning(clients: Clients, found: Biased) -> str:
    """Say, behind a verdict, that a plan has a bias, and to whose cost."""
    if found.weight is None:
        return ""
    less = np.count_nonzero(found.weight < clients.data_weight / 2)
    moved = float(np.abs(found.weight - clients.data_weight).sum()) / 2
    return (
        f"; bias {found.bias:.2g}: {moved:.0%} of the weight is moved, {less} of {len(clients)} "
        "clients count for less than half of their data"
    )


def _bias_statistics(fleet: Fleet, found: Biased) -> dict[str, float]:
    if found.weight is None:
        return {}
    return {"bias": found.bias, "bias_if_alike": bias_if_alike(fleet, found.weight)}


def _stated(plan: Plan, law: QueueLaw, cost: Cost, tuned_noise: float | None = None) -> Plan:
    """The plan with what its schedule does; `tuned_noise` is that of the rounds it replaces."""
    noise = {"delay_beats": cost.delay_beats, "beat_noise": cost.noise}
    if tuned_noise is not None:
        noise["tuned_noise"] = tuned_noise
    return replace(
        plan,
        decision=replace(plan.decision, beat_seconds=float(law.beat_seconds)),
        relative_rounds=cost.relative_beats,
        objective_seconds=cost.objective_seconds,
        updates_per_second=law.update_rate(),
        staleness_seconds=StalenessSeconds(law.mean_age_seconds(), law.p95_age_seconds()),
        band_utilisation=float(law.utilisation),
        statistics={**plan.statistics, **noise},
    )


def _round_noise(fleet: Fleet, rounds: Plan) -> float:
    """V / ||u||^2 of a round, for which a server rate is tuned."""
    kappa = fleet.lora_rank / rounds.sketch_rank.astype(np.float64)
    return float(np.sum(fleet.noise * kappa / (rounds.sampling_probability * fleet.availability)))


def _binds(
    problem: Problem, fleet: Fleet, made: OverlappingSchedule, rank: Floats
) -> dict[str, NDArray[np.bool_]]:
    memory = np.floor(problem.clients.max_rank)
    q, paid = made.start_probability, fleet.most_often(rank, made.beat_seconds)
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
    alone = fleet.alone_seconds(rank)
    age = np.maximum(np.ceil(alone / beat_seconds), 1.0)
    if age.max() > _MOST_BEATS:
        raise InputError(
            f"beat_seconds is {beat_seconds:g}: the slowest update takes {alone.max():.4g} s, more "
            f"than {_MOST_BEATS:,} beats; give {alone.max() / _MOST_BEATS:.2g} s or more"
        )
    least = 1 / (age + 1 / (fleet.availability * problem.q_min) - 1)
    used = float(least @ fleet.work_seconds(rank)) / beat_seconds
    if used > _LARGEST_USE:
        raise InputError(
            f"beat_seconds is {beat_seconds:g}: with every client at q_min = {problem.q_min:g} the "
            f"uploads would take {used:.3g} of the band; give a longer beat, a lower q_min, or "
            "more bandwidth_hz"
        )
