"""One entry for all planners: from clients and system to a plan with its predictions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from fedpace.core.arguments import NUMBER, takes
from fedpace.core.errors import InputError
from fedpace.core.plan import Decision, Plan, RoundSeconds, ScheduleChoice
from fedpace.core.profile import ClientProfile, Clients, System
from fedpace.estimation.privacy_loss import PrivacyLimit
from fedpace.planning.baselines import fslora, full, oort, statistics, uniform, weighted
from fedpace.planning.exact import exact, icc24
from fedpace.planning.infocom22 import infocom22
from fedpace.planning.overlap.choice import MOST_IN_STEP, overlaps
from fedpace.planning.overlap.described import overlapping_plan
from fedpace.planning.overlap.in_step import in_step_share
from fedpace.planning.overlap.objective import limit_seconds
from fedpace.planning.paper import paper
from fedpace.planning.private import not_private, within_privacy
from fedpace.planning.round_time.upper_bound import solo_seconds
from fedpace.planning.solver.limits import p95_seconds, predicted
from fedpace.planning.solver.objective import (
    Problem,
    Solution,
    log_objective,
    probability_limit,
    rank_limit,
    relative_rounds,
)
from fedpace.wireless.channel import model_of, rate_bps, uplink
from fedpace.wireless.latency import upload_bits

__all__ = ["MINIMISING", "PLANNERS", "SCALED", "Planner", "plan", "quantile_used", "so_unused"]


class Planner(Protocol):
    """What chooses a decision: `exact`, a paper's rule, or your own (docs/extending.md)."""

    def __call__(self, problem: Problem, start: Decision | None = None) -> Solution:
        """Return a decision for a problem, from a decision to start from, or from none."""


PLANNERS: dict[str, Planner] = {
    "exact": exact,
    "paper": paper,
    "full": full,
    "uniform": uniform,
    "weighted": weighted,
    "statistics": statistics,
    "oort": oort,
    "infocom22": infocom22,
    "icc24": icc24,
    "fslora": fslora,
}
"""By name."""

SCALED = ("uniform", "weighted", "statistics", "oort", "infocom22", "fslora")
"""Planners that leave one number open, the size of the cohort."""

MINIMISING = ("exact", "paper", "icc24")
"""Planners that look for the least predicted time; the others follow a rule of their own."""

_BY_MEAN = ("paper",)
"""Planners that know the mean round time alone, and leave a quantile that is asked for."""
_LIMIT_TOLERANCE = 1e-9
"""Relative distance at which a value counts as being at its limit."""
_EQUAL_SHARE_NOTE = (
    "; planned for equal finish: equal shares of the band take longer than predicted"
)
"""What is added to the verdict under equal shares."""


@takes(
    clients=(Clients, Sequence), system=System, planner=str, q_min=NUMBER, quantile=NUMBER,
    p95_limit_seconds=NUMBER, cohort=NUMBER, max_participants=NUMBER, schedule=str,
    beat_seconds=NUMBER, max_bias=NUMBER, start=Plan, privacy=PrivacyLimit, predict=bool,
)  # fmt: skip
def plan(
    clients: Clients | Sequence[ClientProfile],
    system: System,
    planner: str = "exact",
    *,
    q_min: float = 1e-3,
    quantile: float | None = None,
    p95_limit_seconds: float | None = None,
    cohort: float | None = None,
    max_participants: float | None = None,
    schedule: ScheduleChoice = "synchronous",
    beat_seconds: float | None = None,
    max_bias: float = 0.0,
    privacy: PrivacyLimit | None = None,
    start: Plan | None = None,
    predict: bool = True,
) -> Plan:
    r"""Choose who takes part how often, and at what sketch rank.

    Minimises the expected time to a target, (mean round time) x (rounds needed),
    :math:`E[T](q, k)\, R(q, k)` over q in [q_min, 1]^N and k in {1..min(r, max_rank_n)}^N, within
    each client's energy budget; see docs/theory.md for R and docs/round-time.md for E[T]. The
    planners differ in how, and the baselines in what they may move:
    docs/how-to-choose-a-planner.md.

    Args:
        clients: N clients, from one to a million; columns, or rows.
        system: what they share.
        planner: a name in `PLANNERS`.
        q_min: least sampling probability.
        quantile: minimise this quantile of the round time, times the rounds, instead of the mean;
            rounds in which nobody takes part count as they do there. The gains of the plan are
            then by it, too; "paper" does not use it.
        p95_limit_seconds: longest p95 round time allowed, s.
        cohort: mean sampling probability, in [q_min, 1], at which a planner of `SCALED` is held;
            "infocom22" makes cohort x N draws. None: each takes the best for its objective. The
            gains of the plan compare with the best uniform and weighted plans in any case.
        max_participants: most clients that a round may ask, in the mean: the sum of q, or the
            draws. None: no limit. For rounds that wait; "auto" then leaves them synchronous.
        schedule: "synchronous", "overlapping", or "auto": overlapping where that is predicted to be
            faster by `enough_gain`, and less than `MOST_IN_STEP` of the data is on clients that
            stay in step. Only the planner "exact" plans rounds that overlap, on a
            band that never idles; "auto" leaves all else synchronous, and what has a `quantile`,
            `max_participants` or `privacy`.
            `p95_limit_seconds` then limits the age of an update.
        beat_seconds: D of overlapping rounds, s; None: planned.
        max_bias: largest bias of overlapping rounds, the squared distance from the mean update over
            its square, in [0, 1): clients that cost much time may count less than their data, and
            what is fitted leans to the others. 0: none.
        privacy: what the plan may cost any client's privacy; for synchronous rounds of clients who
            are sampled independently. The noise itself is not counted in the rounds needed.
        start: an earlier plan for these clients, to start from and save time.
        predict: False leaves the predictions out, and saves what they cost.

    Returns:
        The plan. Its verdict is "converged", "stalled", "iteration cap", or "infeasible: ..." with
        the limits that contradict each other and what to change; docs/what-the-plan-tells-you.md.

    Raises:
        InputError: an unknown planner, or a value out of range.

    Example:
        >>> clients = Clients.from_columns(
        ...     data_weight=[1, 1, 2], step_seconds=[0.1, 0.1, 0.8], spectral_efficiency=[2, 1, 1])
        >>> system = System(bandwidth_hz=2e6, lora_rank=8, noise_ratio=30.0, overhead_seconds=3.0)
        >>> made = plan(clients, system)
        >>> made.verdict, made.sampling_probability.round(2).tolist()
        ('converged', [1.0, 1.0, 1.0])
    """
    if not isinstance(clients, Clients):
        clients = Clients.from_profiles(clients)
    if planner not in PLANNERS:
        raise InputError(f"planner {planner!r} is unknown; choose one of {', '.join(PLANNERS)}")
    if cohort is not None and planner not in SCALED:
        raise InputError(
            f"cohort = {cohort!r}: planner {planner!r} chooses its cohort itself; leave it out, "
            f"or choose one of {', '.join(SCALED)}"
        )
    _check_schedule(planner, schedule, beat_seconds, system)
    _check_bias(planner, schedule, max_bias, system)
    if schedule == "overlapping" and max_participants is not None:
        raise InputError(
            f"max_participants = {max_participants!r}: rounds that overlap have no cohort of their "
            "own; leave it out, or take schedule 'synchronous'"
        )
    if schedule == "overlapping" and quantile is not None:
        raise InputError(
            f"quantile = {quantile!r}: rounds that overlap have no round time of which to take it; "
            "leave it out, or take schedule 'synchronous'"
        )
    problem = Problem(clients, system, q_min, quantile, p95_limit_seconds, cohort, max_participants)
    if start is not None and not np.array_equal(start.client_id, clients.client_id):
        raise InputError("start is a plan for other clients; give one with the same client_id")
    _refuse_timeless(problem)
    # With "overlapping" none of them comes as far as this.
    of_rounds = (quantile, max_participants, privacy)
    waits = schedule == "synchronous" or planner != "exact" or any(x is not None for x in of_rounds)
    waits = waits or system.allocation != "work-conserving"
    contradiction = _contradiction(problem) or not_private(problem, privacy, planner, schedule)
    too_late = _too_late(problem) if contradiction is None else None
    if contradiction or (waits and too_late):
        return _least_of_all(problem, planner, str(contradiction or too_late))
    given = None if start is None or start.schedule == "overlapping" else start.decision
    # What beats are compared with may break a limit that only rounds cannot keep.
    known = replace(problem, p95_limit_seconds=None, made={}) if too_late else problem
    known, solution = within_privacy(known, privacy, PLANNERS[planner], given)
    if not waits:
        rounds = _described(known, planner, solution)
        beats = overlapping_plan(problem, planner, beat_seconds, rounds, max_bias=max_bias)
        if too_late:
            beats, rounds = replace(beats, gain={}), _least_of_all(problem, planner, too_late)
        if schedule == "overlapping":
            return _in_step(beats) if in_step_share(beats, clients) >= MOST_IN_STEP else beats
        if overlaps(beats, rounds, clients):
            return beats
        return _waiting(rounds, beat_seconds, max_bias)
    made = _described(known, planner, solution) if predict else _bare(known, planner, solution)
    return _waiting(made, beat_seconds, max_bias)


def _least_of_all(problem: Problem, planner: str, verdict: str) -> Plan:
    """The plan that asks for the least, where not even that keeps the limits."""
    count = len(problem.clients)
    least = Decision(np.full(count, problem.q_min), np.ones(count, np.int64))
    return _described(problem, planner, Solution(least, verdict))


def _in_step(beats: Plan) -> Plan:
    """Say that a schedule brings less than is predicted."""
    why = "; most clients stay in step, so rounds that overlap bring less than predicted"
    return replace(beats, verdict=beats.verdict + why)


def _waiting(rounds: Plan, beat_seconds: float | None, max_bias: float) -> Plan:
    """Say of rounds that wait in the end that what was said of overlapping ones is not used."""
    unused = [name for name, value in
              (("beat_seconds", beat_seconds), ("max_bias", max_bias)) if value]  # fmt: skip
    if not unused:
        return rounds
    return replace(rounds, verdict=f"{rounds.verdict}; rounds wait, {so_unused(unused)}")


def quantile_used(planner: str, quantile: float | None) -> float | None:
    """Return the quantile of the round time that a planner minimises; None where it is the mean."""
    return None if planner in _BY_MEAN else quantile


def so_unused(names: Sequence[str]) -> str:
    """Return what a verdict says of keys, at least one, that a plan does not use."""
    *others, last = names
    listed = f"{', '.join(others)} and {last}" if others else last
    return f"so {listed} {'are' if others else 'is'} not used"


def _check_schedule(
    planner: str, schedule: str, beat_seconds: float | None, system: System
) -> None:
    if schedule not in get_args(ScheduleChoice):
        raise InputError(
            f"schedule is {schedule!r}; choose one of {', '.join(get_args(ScheduleChoice))}"
        )
    if schedule == "overlapping" and planner != "exact":
        raise InputError(
            f"schedule = 'overlapping': planner {planner!r} plans synchronous rounds only; take "
            "planner 'exact', or schedule 'synchronous' or 'auto'"
        )
    if schedule == "overlapping" and system.allocation != "work-conserving":
        raise InputError(
            f"schedule = 'overlapping': allocation {system.allocation!r} divides the band of a "
            "round that waits for all; take allocation 'work-conserving'"
        )
    if beat_seconds is None:
        return
    if schedule == "synchronous":
        raise InputError(
            f"beat_seconds = {beat_seconds!r}: synchronous rounds have no beat; leave it out, or "
            "take schedule 'overlapping' or 'auto'"
        )
    if not 0 < beat_seconds < np.inf:
        raise InputError(f"beat_seconds is {beat_seconds!r}; give a finite time above 0, or none")


def _check_bias(planner: str, schedule: str, max_bias: float, system: System) -> None:
    if not 0 <= max_bias < 1:
        raise InputError(f"max_bias is {max_bias!r}; give a share in [0, 1), 0 for no bias")
    if max_bias and planner != "exact":
        raise InputError(
            f"max_bias = {max_bias!r}: planner {planner!r} plans without a bias; leave it out, or "
            "take planner 'exact'"
        )
    if max_bias and system.noise_ratio == 0:
        raise InputError(
            f"max_bias = {max_bias!r} with noise_ratio = 0, which says that no client differs from "
            "another; give the noise ratio of a run, or leave max_bias out"
        )
    if max_bias and schedule == "synchronous":
        raise InputError(
            f"max_bias = {max_bias!r}: only rounds that overlap are planned with a bias; leave it "
            "out, or take schedule 'overlapping' or 'auto'"
        )


def _refuse_timeless(problem: Problem) -> None:
    """Refuse a quantile that is 0 s where hardly anybody is asked: nothing would be less."""
    if problem.quantile is None or problem.system.overhead_seconds > 0:
        return
    empty = float(np.prod(1 - problem.q_min * problem.clients.availability))
    if problem.quantile <= empty:
        raise InputError(
            f"quantile = {problem.quantile:g} with overhead_seconds = 0: with every client at "
            f"q_min = {problem.q_min:g} nobody takes part in {empty:.4g} of the rounds, which take "
            "0 s, so that nothing is left to minimise; set overhead_seconds above 0, raise q_min, "
            "or leave the quantile out"
        )


def _contradiction(problem: Problem) -> str | None:
    """What makes the limits impossible to keep together, and the remedy; None if nothing does."""
    clients = problem.clients
    unpaid = rank_limit(problem) < 1
    if np.any(unpaid):
        who = str(clients.client_id[np.argmax(unpaid)])
        return (
            f"infeasible: max_joules_per_round of client {who!r} does not pay for q_min = "
            f"{problem.q_min:g} at rank 1; raise it, lower q_min, or drop the client"
        )
    least_asked, most_asked = problem.q_min * len(clients), problem.max_participants
    if most_asked is not None and least_asked > most_asked:
        return (
            f"infeasible: q_min = {problem.q_min:g} asks for {least_asked:g} of {len(clients)} "
            f"clients a round, max_participants is {most_asked:g}; lower q_min, or raise "
            "max_participants"
        )
    return None


def _too_late(problem: Problem) -> str | None:
    """What makes rounds that wait too long for the p95 limit, and the remedy; None if nothing."""
    clients, limit, ones = problem.clients, problem.p95_limit_seconds, np.ones(len(problem.clients))
    if limit is None or (least := p95_seconds(problem, problem.q_min * ones, ones)) <= limit:
        return None
    slowest = str(clients.client_id[np.argmax(solo_seconds(clients, problem.system, ones))])
    return (
        f"infeasible: the p95 round time is {least:.4g} s with every client at q_min = "
        f"{problem.q_min:g} and rank 1, above the limit of {limit:g} s; raise the limit, "
        f"lower q_min, or drop slow clients (the slowest is {slowest!r})"
    )


def _bare(problem: Problem, planner: str, solution: Solution) -> Plan:
    """The plan of a decision, and nothing about it."""
    ids = problem.clients.client_id.copy()
    verdict = solution.verdict
    if problem.system.allocation == "equal-share":
        verdict += _EQUAL_SHARE_NOTE
    return Plan(planner, ids, solution.decision, verdict)


def _described(problem: Problem, planner: str, solution: Solution) -> Plan:
    """The plan of a decision: with predictions, gains, and what binds."""
    clients, system, decision = problem.clients, problem.system, solution.decision
    law = predicted(problem, decision)
    rounds = relative_rounds(
        decision.sampling_probability, decision.sketch_rank.astype(np.float64), clients, system,
        decision.draws,
    )  # fmt: skip
    gain, quantile = {}, quantile_used(planner, problem.quantile)
    if quantile != problem.quantile:  # all are compared by what this one minimised
        problem = replace(problem, quantile=quantile, made={})
    late = np.nan if quantile is None else float(np.exp(log_objective(problem, decision)))
    if not solution.verdict.startswith("infeasible"):
        ours = log_objective(problem, decision)
        held = problem.cohort is not None or problem.q_max is not None
        free = replace(problem, cohort=None, made={}) if held else problem
        for other in (uniform, weighted):
            theirs = other(free)
            if theirs.verdict == "converged":
                gain[other.__name__] = float(np.exp(log_objective(free, theirs.decision) - ours))
    rates = decision.participation_probability() * clients.availability / max(law.mean, 1e-300)
    used = np.nan  # a Shannon upload takes of the band what its share makes it take
    if model_of(uplink(clients)).proportional:
        work = upload_bits(system, decision.sketch_rank) / rate_bps(1.0, **uplink(clients))
        used = float(rates @ work) / system.bandwidth_hz
    return replace(
        _bare(problem, planner, solution),
        round_seconds=RoundSeconds(law.mean, law.quantile(0.5), law.quantile(0.95)),
        relative_rounds=rounds,
        objective_seconds=law.mean * rounds,
        quantile=quantile,
        quantile_seconds=late,
        updates_per_second=rates,
        band_utilisation=used,
        limit_seconds=limit_seconds(clients, system),
        gain=gain,
        binds=_binds(problem, decision, law.mean),
        statistics=solution.statistics,
    )


def _binds(problem: Problem, decision: Decision, mean: float) -> dict[str, NDArray[np.bool_]]:
    """Which limit holds which client; limits that hold nobody are left out."""
    clients, system = problem.clients, problem.system
    q, k = decision.participation_probability(), decision.sketch_rank.astype(np.float64)
    paid = probability_limit(problem, k)
    most = np.ones(len(clients)) if problem.q_max is None else problem.q_max
    memory = np.floor(clients.max_rank)
    capped = clients.max_bandwidth_hz < system.bandwidth_hz
    alone = system.overhead_seconds + solo_seconds(clients, system, k)
    binds = {
        "q at 1": q >= 1 - _LIMIT_TOLERANCE,
        "q at q_min": q <= problem.q_min * (1 + _LIMIT_TOLERANCE),
        "rank at memory": (k == memory) & (memory < system.lora_rank),
        "link cap": capped & (alone >= mean),
        "energy": (paid < most) & (q >= paid * (1 - _LIMIT_TOLERANCE)),
        "privacy": (most < 1) & (q >= most * (1 - _LIMIT_TOLERANCE)),
    }
    return {name: clientwise for name, clientwise in binds.items() if clientwise.any()}
