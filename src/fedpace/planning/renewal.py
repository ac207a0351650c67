r"""Renew the plan while the run goes on, from what the rounds have shown.

After each round `Renewal.after` takes the record into account: the noise scale
(`estimation.noise_scale`) and, per client, how much slower it started and sent than its profile
says. Every so many rounds it plans again, starting from the plan in force, and changes over only if
the new plan is predicted to be better by more than a threshold: estimates always move a little, and
near its optimum the objective is flat, so that without a threshold plans would follow the noise.
docs/noise-scale.md has the measurements behind the default. A planner that follows a rule of its
own ("statistics", "oort") has no such test: what it needs, Gamma_n, is known from the first round.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.core.profile import Clients, Floats, System
from fedpace.core.record import LateRecord, ParticipantRecord, RoundRecord
from fedpace.estimation.client_means import (
    ClientMeans,
    fold,
    no_observations,
    shrunk,
    with_unseen,
)
from fedpace.estimation.noise_scale import NoiseScale, Part, noise_record, noise_scale
from fedpace.estimation.noise_state import (
    NoiseState,
    grown_noise_state,
    initial_noise_state,
    observe,
)
from fedpace.planning.solver.objective import Problem, log_objective
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.latency import download_bits, start_seconds
from fedpace.wireless.links import LINKS

__all__ = [
    "LEAST_GAIN",
    "Renewal",
    "RenewalState",
    "Replan",
    "expected_seconds",
    "grown",
    "informed",
    "overhead_seconds",
    "renew_every",
]

PRIOR_INVITATIONS = 4.0
"""How many invitations what is known beforehand of an availability counts for."""
LEAST_GAIN = 0.02
"""Relative gain of the predicted time below which a plan is not worth a change."""
MAX_RATIO = 1e3
"""A noise ratio beyond it plans as this one: the rounds are then proportional to V to 0.1 %."""


class Replan(Protocol):
    """A planner with everything but the population, the system and the start given."""

    def __call__(
        self, clients: Clients, system: System, *, start: Plan | None, predict: bool
    ) -> Plan:
        """Return a plan, found from `start`; without its predictions where they are not asked for.

        First it is given the plan in force, then, if the result is taken, that one; None where the
        plan in force is for fewer clients.
        """


@dataclass(frozen=True, slots=True, eq=False)
class RenewalState:
    """What a run's renewals remember; a resumed run that has it goes on bit for bit."""

    noise: NoiseState
    start: ClientMeans
    """Observed over predicted seconds of download and local steps."""
    demand: ClientMeans
    """Predicted over observed spectral efficiency of the uplink."""
    invited: NDArray[np.int64]
    """How often each client was asked, shape (N,)."""
    answered: NDArray[np.int64]
    """How often it answered in time, shape (N,)."""
    overhead: ClientMeans = field(default_factory=partial(no_observations, 1))
    """Seconds of a round that were neither training nor transfer, where an engine observes them."""
    planned: int = 0
    """How often a new plan was computed."""
    switched: int = 0
    """How often it was taken."""

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON types."""
        parts = {n: getattr(self, n).to_json() for n in ("noise", "start", "demand", "overhead")}
        counts = {n: getattr(self, n).tolist() for n in ("invited", "answered")}
        return parts | counts | {"planned": self.planned, "switched": self.switched}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "RenewalState":
        """Rebuild a state from what `to_json` returned."""
        seen = table["start"]["observations"]
        return cls(
            noise=NoiseState.from_json(table["noise"]),
            start=ClientMeans.from_json(table["start"]),
            demand=ClientMeans.from_json(table["demand"]),
            # Checkpoints of earlier versions lack these.
            invited=np.asarray(table.get("invited", seen), dtype=np.int64),
            answered=np.asarray(table.get("answered", seen), dtype=np.int64),
            overhead=ClientMeans.from_json(table.get("overhead", no_observations(1).to_json())),
            planned=table["planned"],
            switched=table["switched"],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Renewal:
    """How a run's plan is renewed, and what the rounds so far have shown."""

    replan: Replan
    clients: Clients
    """As profiled before the run."""
    system: System
    every: int
    threshold: float | None
    part: Part
    objective: Callable[[Plan, Clients, System], float]
    state: RenewalState = field(repr=False)
    """All that changes from round to round; ``replace(renewal, state=...)`` resumes."""
    learn_availability: bool = False
    """Plan with the availability that was seen, not with the profile's."""
    private: bool = False
    """Plan from times and availability alone: norms of updates are what no noise has covered."""

    def after(self, record: RoundRecord, plan: Plan) -> "tuple[Plan, Renewal]":
        """Take one round into account.

        Args:
            record: the newest.
            plan: in force.

        Returns:
            The next plan, the same object where nothing changes (where too few rounds were observed
            for a renewal that is due, its verdict says so), and the renewal that knows the round.
        """
        share, rank = self.clients.data_weight, self.system.lora_rank
        seen = observe(self.state.noise, record, share, rank, plan.aggregation_weight)
        known = self.watched(record)
        known = replace(known, state=replace(known.state, noise=seen))
        if (record.round + 1) % self.every:
            return plan, known
        noise = known.noise_scale()
        if not self._may_plan(noise):
            before = plan.verdict.split("; not renewed", 1)[0]
            return replace(plan, verdict=f"{before}; not renewed: {noise.verdict}"), known
        clients, system = known._informed(noise, plan)
        candidate = self.replan(clients, system, start=plan, predict=False)
        better = True
        if self.threshold is not None:
            now = self.objective(plan, clients, system)
            better = bool(self.objective(candidate, clients, system) < (1 - self.threshold) * now)
        if better and np.isnan(candidate.objective_seconds):
            candidate = self.replan(clients, system, start=candidate, predict=True)
        plan = candidate if better else plan
        planned, switched = known.state.planned + 1, known.state.switched + better
        return plan, replace(known, state=replace(known.state, planned=planned, switched=switched))

    def watched(self, record: RoundRecord) -> "Renewal":
        """Take who answered, and in how many seconds, into account, and no noise scale."""
        return replace(self, state=_watched(self.state, record, self.clients, self.system))

    def grown(self, clients: Clients) -> "Renewal":
        """Take in clients who stand behind the known ones; `clients` are all, as profiled."""
        return replace(self, clients=clients, state=grown(self.state, clients.data_weight))

    def anew(self, plan: Plan) -> Plan | None:
        """Return a plan from what the rounds have shown; None where that is too little.

        Args:
            plan: in force, perhaps for fewer clients.
        """
        noise = self.noise_scale()
        if not (noise.rounds_observed and self._may_plan(noise)):
            return None
        return self.replan(*self._informed(noise, plan), start=None, predict=True)

    def _may_plan(self, noise: NoiseScale) -> bool:
        return self.threshold is None or self.private or noise.sufficient

    def _informed(self, noise: NoiseScale, plan: Plan) -> tuple[Clients, System]:
        if self.private:
            profile = self.clients.update_second_moment
            noise = replace(noise, ratio=np.nan, update_second_moment=profile)
        clients, system = informed(self.state, self.clients, self.system, noise, plan)
        if self.learn_availability:
            clients = _answering(clients, self.availability())
        return clients, system

    def noise_scale(self) -> NoiseScale:
        """Return what is known of the noise scale so far."""
        return noise_scale(self.state.noise, self.clients.data_weight, self.part)

    def noise_record(self) -> dict[str, float]:
        """Return it for all parts of the update, for `RoundRecord.noise_scale`."""
        return noise_record(self.state.noise, self.clients.data_weight)

    def availability(self) -> Floats:
        """Return how likely each client answers, from how often it did, shape (N,).

        The mean of a Beta posterior. Its prior is that of a client of the population, which
        counts as `PRIOR_INVITATIONS`; the population's own prior is the profile's.
        """
        asked, came = self.state.invited, self.state.answered
        profile = self.clients.availability
        pooled = (came.sum() + PRIOR_INVITATIONS * profile) / (asked.sum() + PRIOR_INVITATIONS)
        return np.asarray((came + PRIOR_INVITATIONS * pooled) / (asked + PRIOR_INVITATIONS))

    def timed(self, participants: float) -> Clients:
        """Return the clients with steps, downloads and links as the rounds have shown them.

        Args:
            participants: of a round, on average; a Shannon link is matched at their share.
        """
        return _timed(self.state, self.clients, self.system, participants)

    def estimates(self, plan: Plan) -> Clients:
        """Return the clients as the rounds have shown them: seconds, links, availability."""
        timed = self.timed(float(plan.participation_probability().sum()))
        return _answering(timed, self.availability())


def renew_every(
    replan: Replan,
    clients: Clients,
    system: System,
    *,
    every: int,
    threshold: float | None = LEAST_GAIN,
    part: Part = "all",
    forget: float = 0.95,
    objective: Callable[[Plan, Clients, System], float] | None = None,
    learn_availability: bool = False,
    private: bool = False,
) -> Renewal:
    """Return the renewal of a run's plan.

    After each round ``plan, renewal = renewal.after(record, plan)``.

    Args:
        replan: ``planning.planner.plan`` or a partial of it; called with ``start=`` the plan in
            force.
        clients: as profiled before the run.
        system: as configured before the run; its noise ratio is replaced by the measured one.
        every: rounds between renewals.
        threshold: least relative gain of the predicted time for which the plan is changed; None:
            every new plan is taken.
        part: of the update that the noise scale is taken from; see `noise_scale`.
        forget: factor a round by which older observations count less.
        objective: predicted seconds to the target, up to a common factor, of a plan; by default
            `expected_seconds`. Give the one that the planner minimises.
        learn_availability: plan with the availability that was seen, not with the profile's.
        private: plan without what the norms of updates say.

    Raises:
        InputError: `every` or `threshold` is out of range.
    """
    if every < 1:
        raise InputError(f"every is {every!r}; renew every 1 or more rounds, or not at all")
    if threshold is not None and not 0 <= threshold < 1:
        raise InputError(f"threshold is {threshold!r}; it must be in [0, 1), or None")
    nothing = no_observations(len(clients))
    none = np.zeros(len(clients), dtype=np.int64)
    state = RenewalState(initial_noise_state(len(clients), forget), nothing, nothing, none, none)
    return Renewal(
        replan, clients, system, every, threshold, part, objective or expected_seconds, state,
        learn_availability, private,
    )  # fmt: skip


def expected_seconds(
    plan: Plan, clients: Clients, system: System, quantile: float | None = None
) -> float:
    """Mean round time, or that quantile of it, times relative rounds of a plan, s."""
    problem = Problem(clients, system, quantile=quantile)
    return float(np.exp(log_objective(problem, plan.decision)))


def informed(
    state: RenewalState, clients: Clients, system: System, noise: NoiseScale, plan: Plan
) -> tuple[Clients, System]:
    """Return clients and system as the rounds have shown them, ready for a planner.

    Args:
        state: what was observed.
        clients: as profiled.
        system: as configured.
        noise: gives the noise ratio and Gamma_n.
        plan: in force; its mean load gives the share at which a Shannon link is matched.

    Returns:
        Clients with steps, downloads and links scaled by their factors and Gamma_n as estimated;
        the system with the measured noise ratio and overhead, or its own where nothing is measured
        yet.
    """
    timed = _timed(state, clients, system, float(plan.participation_probability().sum()))
    columns: dict[str, Any] = dict(timed.columns())
    columns["update_second_moment"] = noise.update_second_moment
    ratio = system.noise_ratio if np.isnan(noise.ratio) else min(noise.ratio, MAX_RATIO)
    overhead = overhead_seconds(state, system)
    system = replace(system, noise_ratio=ratio, overhead_seconds=overhead)
    return Clients.from_columns(**columns), system


def overhead_seconds(state: RenewalState, system: System) -> float:
    """Return what a round costs besides training and transfer, as seen or else as configured, s."""
    seen = state.overhead
    return float(seen.mean[0]) if seen.observations[0] else system.overhead_seconds


def grown(state: RenewalState, data_weight: Floats) -> RenewalState:
    """Return the state once new clients stand behind the known ones, of whom it keeps all.

    Args:
        state: of the first clients.
        data_weight: a_n of all, shape (N,).
    """
    count = len(data_weight)
    none = np.zeros(count - len(state.invited), dtype=np.int64)
    return replace(
        state,
        noise=grown_noise_state(state.noise, data_weight),
        start=with_unseen(state.start, count),
        demand=with_unseen(state.demand, count),
        invited=np.append(state.invited, none),
        answered=np.append(state.answered, none),
    )


def _timed(state: RenewalState, clients: Clients, system: System, participants: float) -> Clients:
    columns: dict[str, Any] = dict(clients.columns())
    slower, weaker = (shrunk(m, state.noise.forget) for m in (state.start, state.demand))
    for name in ("step_seconds", "step_seconds_per_rank", "download_seconds"):
        columns[name] = columns[name] * slower
    # As wireless.channel.mean_faded: the efficiency at a typical share of the band.
    name, value = clients.link
    share = system.bandwidth_hz / max(1.0, participants)
    columns[name] = LINKS[name].divided(value, weaker, share)
    return Clients.from_columns(**columns)


def _answering(clients: Clients, availability: Floats) -> Clients:
    return Clients.from_columns(**{**clients.columns(), "availability": availability})


def _watched(
    state: RenewalState, record: RoundRecord, clients: Clients, system: System
) -> RenewalState:
    """Take who answered, and in how many seconds, into account."""
    # A late answer did not count, but it tells how slow its client is.
    people: list[ParticipantRecord | LateRecord] = [*record.participants, *record.late]
    index = np.array([p.client for p in people], dtype=np.int64)
    times = np.array([(p.start_seconds, p.upload_seconds) for p in people]).reshape(-1, 2)
    band = np.array([p.bandwidth_hz for p in people], dtype=np.float64)
    bits = 8 * np.array([p.upload_bytes for p in people], dtype=np.float64)
    rank = np.ones(len(clients))
    rank[index] = [p.sketch_rank for p in people]
    # The downlink is the system's and no fault of the client's.
    downlink = (download_bits(system, rank) / system.downlink_bps)[index]
    predicted = start_seconds(clients, system, rank)[index] - downlink
    expected_bps = rate_bps(band, **uplink(clients, index))
    with np.errstate(divide="ignore", invalid="ignore"):
        started = (times[:, 0] - downlink) / predicted
        demanded = expected_bps * times[:, 1] / bits

    def told(means: ClientMeans, seen: Floats) -> ClientMeans:
        says = np.isfinite(seen) & (seen > 0)
        return fold(means, index[says], seen[says], state.noise.forget)

    overhead = state.overhead
    if record.overhead_seconds is not None:
        seconds = np.array([max(record.overhead_seconds, 1e-6)])
        overhead = fold(overhead, np.array([0]), seconds, state.noise.forget)
    refused = [client for client, _ in record.refusals]
    in_time = [p.client for p in record.participants]
    answered = _counts([*in_time, *refused], len(clients))
    return replace(
        state,
        invited=state.invited + answered + _counts(record.missing, len(clients)),
        answered=state.answered + answered,
        start=told(state.start, started),
        demand=told(state.demand, demanded),
        overhead=overhead,
    )


def _counts(client: Sequence[int], num_clients: int) -> NDArray[np.int64]:
    return np.bincount(np.array(client, dtype=np.int64), minlength=num_clients)
