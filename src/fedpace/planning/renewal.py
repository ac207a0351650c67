r"""Renew the plan while the run goes on, from what the rounds have shown.

After each round `Renewal.after` takes the record into account: the noise scale
(`estimation.noise_scale`) and, per client, how much slower it started and sent than its profile
says. Every so many rounds it plans again, starting from the plan in force, and changes over only if
the new plan is predicted to be better by more than a threshold: estimates always move a little, and
near its optimum the objective is flat, so that without a threshold plans would follow the noise.
docs/noise-scale.md has the measurements behind the default. A planner that follows a rule of its
own ("statistics", "oort") has no such test: what it needs, Gamma_n, is known from the first round.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.core.profile import Clients, Floats, System
from fedpace.core.record import RoundRecord
from fedpace.estimation.client_means import no_observations
from fedpace.estimation.noise_scale import (
    MIN_ROUNDS,
    NoiseScale,
    Part,
    noise_record,
    noise_scale,
)
from fedpace.estimation.noise_state import initial_noise_state, observe
from fedpace.planning.renewal_state import RenewalState, grown, informed, timed, watched
from fedpace.planning.solver.objective import Problem, log_objective

__all__ = ["LEAST_GAIN", "Renewal", "Replan", "expected_seconds", "renew_every"]

PRIOR_INVITATIONS = 4.0
"""How many invitations what is known beforehand of an availability counts for."""
LEAST_GAIN = 0.02
"""Relative gain of the predicted time below which a plan is not worth a change."""


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
    unbiased: Replan | None = None
    """As `replan`, without a bias: a bias is given up where it turns out that nobody can tell how
    large it is. None: it stays."""

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
            if plan.aggregation_weight is not None and noise.rounds_observed >= MIN_ROUNDS:
                plan = known._given_up(noise, plan)
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
        return replace(self, state=watched(self.state, record, self.clients, self.system))

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

    def _given_up(self, noise: NoiseScale, plan: Plan) -> Plan:
        """Return a plan without a bias for the noise that was guessed, where there may be one."""
        if self.unbiased is None:
            return plan
        guessed = self._guessed(noise)
        made = self.unbiased(*self._informed(guessed, plan), start=plan, predict=True)
        return replace(made, verdict=f"{made.verdict}; the bias is given up")

    def _guessed(self, noise: NoiseScale) -> NoiseScale:
        """Return it without what was measured: a planner then takes what was known before."""
        profile = self.clients.update_second_moment
        return replace(noise, ratio=np.nan, update_second_moment=profile)

    def _may_plan(self, noise: NoiseScale) -> bool:
        return self.threshold is None or self.private or noise.sufficient

    def _informed(self, noise: NoiseScale, plan: Plan) -> tuple[Clients, System]:
        if self.private:
            noise = self._guessed(noise)
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
        return timed(self.state, self.clients, self.system, participants)

    def estimates(self, plan: Plan) -> Clients:
        """Return the clients as the rounds have shown them: seconds, links, availability."""
        seen = self.timed(float(plan.participation_probability().sum()))
        return _answering(seen, self.availability())


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
    unbiased: Replan | None = None,
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
        unbiased: as `replan`, without a bias.

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
        learn_availability, private, unbiased,
    )  # fmt: skip


def expected_seconds(
    plan: Plan, clients: Clients, system: System, quantile: float | None = None
) -> float:
    """Mean round time, or that quantile of it, times relative rounds of a plan, s."""
    problem = Problem(clients, system, quantile=quantile)
    return float(np.exp(log_objective(problem, plan.decision)))


def _answering(clients: Clients, availability: Floats) -> Clients:
    return Clients.from_columns(**{**clients.columns(), "availability": availability})
