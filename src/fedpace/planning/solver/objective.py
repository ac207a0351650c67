r"""What a planner minimises: expected round time times rounds needed, and the limits on both.

.. math:: \min_{q, k}\; E[T](q, k)\, R(q, k), \qquad
    R = \frac{1 + \rho V / V_\mathrm{full}}{1 + \rho}\, \bar\kappa^p, \quad
    V = \sum_n \frac{a_n^2 \kappa_n \Gamma_n}{q_n \pi_n}, \quad \kappa_n = r / k_n, \quad
    \bar\kappa = \sum_n a_n \kappa_n,

with pi_n the availability and rho the noise ratio. E[T] is `round_time`'s law, or a quantile of it.
The problem is stated in x = log q and y = log k: in them both factors are close to log-convex
(sums of exponentials), and the gradient is a difference of elasticities,
d log(objective) / d x_n = (relative growth of the time) - (relative fall of the rounds).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.plan import Decision
from fedpace.core.profile import Clients, Floats, System
from fedpace.core.text_files import shortened
from fedpace.planning.round_time.distribution import (
    choose_quadrature,
    mean_and_gradient,
    quantile_and_gradient,
)
from fedpace.planning.round_time.grouped import (
    Groups,
    group_clients,
    grouped_mean_and_gradient,
    grouped_quadrature,
    grouped_quantile_and_gradient,
)
from fedpace.planning.round_time.upper_bound import bound_and_gradient, solo_seconds
from fedpace.wireless.latency import upload_bits
from fedpace.wireless.links import LINKS

__all__ = [
    "LARGEST_UNGROUPED",
    "Point",
    "Problem",
    "Solution",
    "TimeLaw",
    "bound_law",
    "evaluate",
    "exact_law",
    "law_groups",
    "link_window",
    "log_objective",
    "noise_weight",
    "probability_limit",
    "rank_limit",
    "relative_rounds",
]

LARGEST_UNGROUPED = 2000
"""Beyond so many clients the round time is that of groups of similar ones."""

_NEVER_IDLE_GROUPS = 500
"""Groups under a band that never idles, whose law takes them one by one; also of fewer clients than
`LARGEST_UNGROUPED`. Their mean is within 0.05 % of that of all."""

_WINDOW_SIZES = 6
"""Sizes of a round for which the window of Shannon links is fitted."""

TimeLaw = Callable[[Floats, Floats], tuple[float, Floats, Floats]]
"""(q, k) -> seconds, d seconds / d q, d seconds / d k: a round time, or a stand-in for it."""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One planning problem."""

    clients: Clients
    system: System
    q_min: float = 1e-3
    """Least sampling probability; 1/q_min bounds the weight of any update."""
    quantile: float | None = None
    """None: minimise mean round time times rounds. p: the p-quantile of the round time instead."""
    p95_limit_seconds: float | None = None
    """Longest p95 round time allowed, s; None: no limit."""
    cohort: float | None = None
    """Mean sampling probability of the planners of one scale; None: each takes its best."""
    max_participants: float | None = None
    """Most clients that a round may ask, in the mean; None: no limit."""
    q_max: Floats | None = None
    """Largest sampling probability of each client, at least q_min, shape (N,); None: 1."""
    groups: Groups | None = None
    """Groups of similar clients; made here where clients are many."""
    made: dict[str, Any] = field(default_factory=dict, repr=False)
    """What several planners ask for, by name."""

    def __post_init__(self) -> None:
        if not 0 < self.q_min <= 1:
            raise InputError(f"q_min is {self.q_min!r}; give a probability in (0, 1]")
        if self.quantile is not None and not 0 < self.quantile < 1:
            raise InputError(f"quantile is {self.quantile!r}; give one in (0, 1), or none")
        limit = self.p95_limit_seconds
        if limit is not None and not 0 < limit < np.inf:
            raise InputError(f"p95_limit_seconds is {limit!r}; give seconds above 0, or none")
        if self.cohort is not None and not self.q_min <= self.cohort <= 1:
            raise InputError(
                f"cohort is {shortened(self.cohort)}; give a mean sampling probability from "
                f"q_min = {self.q_min:g} to 1, or none"
            )
        if self.max_participants is not None and not self.max_participants > 0:
            raise InputError(
                f"max_participants is {self.max_participants!r}; give a number above 0, or none"
            )
        _refuse_unbounded(self.clients, self.system)
        if self.groups is None:
            groups = law_groups(self.clients, self.system)
            object.__setattr__(self, "groups", groups)


def law_groups(clients: Clients, system: System) -> Groups | None:
    """Return the groups by which the law of the round time sees the clients; None: one by one."""
    if system.allocation == "work-conserving":
        if len(clients) <= _NEVER_IDLE_GROUPS:
            return None
        return group_clients(clients, system, _NEVER_IDLE_GROUPS)
    return group_clients(clients, system) if len(clients) > LARGEST_UNGROUPED else None


def _refuse_unbounded(clients: Clients, system: System) -> None:
    """Refuse what no search could end with: a time or a share of the noise that is no number."""
    most = np.floor(np.clip(clients.max_rank, 1.0, system.lora_rank))
    with np.errstate(all="ignore"):
        alone, noise = solo_seconds(clients, system, most), noise_weight(clients, system)
    for value, fault, columns in (
        (
            alone, "cannot send its update in finite time, even alone with the band: it takes",
            "its times and its link column, or drop the client",
        ),
        (
            noise, "has a share of the noise that is no number:",
            "data_weight, update_second_moment and availability for values far too large",
        ),
    ):  # fmt: skip
        wrong = ~np.isfinite(value)
        if np.any(wrong):
            n = int(np.argmax(wrong))
            name = str(clients.client_id[n])
            raise InputError(f"client {name!r} {fault} {value[n]:g}; check {columns}")


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """What a planner returns: its decision, and how it came to it."""

    decision: Decision
    verdict: str = "converged"
    """As in `Plan`."""
    statistics: Mapping[str, float] = field(default_factory=dict)
    """As in `Plan`."""


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """The objective at one (q, k), and its elasticities, each of shape (N,).

    The gradient of log(seconds * rounds) in log q is ``time_by_q - rounds_by_q``, in log k it is
    ``time_by_k - rounds_by_k``.
    """

    seconds: float
    """Mean or quantile of the round time, s."""
    rounds: float
    """Relative rounds."""
    time_by_q: Floats
    """d log(seconds) / d log q_n; >= 0."""
    time_by_k: Floats
    """d log(seconds) / d log k_n."""
    rounds_by_q: Floats
    """-d log(rounds) / d log q_n; >= 0."""
    rounds_by_k: Floats
    """-d log(rounds) / d log k_n; >= 0."""

    @property
    def log_objective(self) -> float:
        """Natural logarithm of the objective in seconds."""
        return float(np.log(self.seconds) + np.log(self.rounds))


def exact_law(problem: Problem, near: tuple[Floats, Floats] | None = None) -> TimeLaw:
    """The mean round time of the problem, or the quantile that it asks for.

    Args:
        problem: clients, system and quantile.
        near: a plan (q, k) around which the law is made smooth, at half the cost, by keeping its
            quadrature nodes; None: nodes are chosen at every call.
    """
    clients, system, quantile = problem.clients, problem.system, problem.quantile
    if system.allocation == "work-conserving":
        return _never_idle_law(problem, near)
    if problem.groups is not None:
        groups = problem.groups
        if near is None:
            if quantile is None:
                return lambda q, k: grouped_mean_and_gradient(groups.at(k), q, k)
            return lambda q, k: grouped_quantile_and_gradient(groups.at(k), quantile, q, k)
        groups = groups.at(near[1])
        if quantile is not None:
            return lambda q, k: grouped_quantile_and_gradient(groups, quantile, q, k)
        kept = grouped_quadrature(groups, *near)
        return lambda q, k: grouped_mean_and_gradient(groups, q, k, quadrature=kept)
    if quantile is not None:
        return lambda q, k: quantile_and_gradient(quantile, q, k, clients, system)
    quadrature = None if near is None else choose_quadrature(*near, clients, system)
    return lambda q, k: mean_and_gradient(q, k, clients, system, quadrature=quadrature)


def _never_idle_law(problem: Problem, near: tuple[Floats, Floats] | None) -> TimeLaw:
    clients, system, quantile = problem.clients, problem.system, problem.quantile
    kept = None if near is None else link_window(problem, near[0])
    many = problem.groups if near is None or problem.groups is None else problem.groups.at(near[1])

    def law(q: Floats, k: Floats) -> tuple[float, Floats, Floats]:
        window = link_window(problem, q) if kept is None else kept
        if many is not None:
            groups = many.at(k) if near is None else many
            if quantile is None:
                return grouped_mean_and_gradient(groups, q, k, quadrature=window)
            return grouped_quantile_and_gradient(groups, quantile, q, k, quadrature=window)
        if quantile is None:
            return mean_and_gradient(q, k, clients, system, quadrature=window)
        return quantile_and_gradient(quantile, q, k, clients, system, quadrature=window)

    return law


def link_window(problem: Problem, sampling_probability: Floats) -> Floats | None:
    """Return the window of Shannon links under a band that never idles, by participants; else None.

    What `NeverIdle.near` fits, here for uniform sampling of a few sizes, and between them read off
    by straight lines in logarithms: smooth, and the same for all planners of a problem.
    """
    clients, system, groups = problem.clients, problem.system, problem.groups
    if system.allocation != "work-conserving":
        return None
    if LINKS[clients.link[0]].proportional:
        return np.zeros(1)
    count = np.ones(len(clients)) if groups is None else groups.count
    people = clients.availability * count
    if "windows" not in problem.made:
        ranks, total = rank_limit(problem).clip(1.0), float(people.sum())
        sizes = np.geomspace(min(1.0, total / 2), total, _WINDOW_SIZES)
        fitted = []
        for size in sizes:
            q = np.full(len(clients), size / total)
            if groups is None:
                fitted.append(choose_quadrature(q, ranks, clients, system)[0])
            else:
                fitted.append(grouped_quadrature(groups.at(ranks), q, ranks)[0])
        problem.made["windows"] = np.log(sizes), np.log(fitted)
    sizes, windows = problem.made["windows"]
    at = np.log(float(sampling_probability @ people))
    return np.array([np.exp(np.interp(at, sizes, windows))])


def bound_law(problem: Problem) -> TimeLaw:
    """The upper bound of `time_bound` in the place of the mean round time."""
    count = 1.0 if problem.groups is None else problem.groups.count
    return lambda q, k: bound_and_gradient(q, k, problem.clients, problem.system, count)


def evaluate(
    problem: Problem, law: TimeLaw, sampling_probability: Floats, sketch_rank: Floats
) -> Point:
    """Return the objective and its elasticities.

    Args:
        problem: clients and system.
        law: gives the seconds of a round.
        sampling_probability: q, shape (N,).
        sketch_rank: k, shape (N,), real-valued.
    """
    q, k, clients, system = sampling_probability, sketch_rank, problem.clients, problem.system
    seconds, by_q, by_k = law(q, k)
    noise = _noise_share(q, k, clients, system)
    total = 1.0 + float(noise.sum())
    kappa, power = _weighted_inverse_ratio(k, clients, system)
    mean_kappa = float(kappa.sum())
    rounds = total / (1 + system.noise_ratio) * mean_kappa**power
    rounds_by_q = noise / total
    return Point(
        seconds, rounds, by_q * q / seconds, by_k * k / seconds,
        rounds_by_q, rounds_by_q + power * kappa / mean_kappa,
    )  # fmt: skip


def relative_rounds(
    sampling_probability: Floats,
    sketch_rank: Floats,
    clients: Clients,
    system: System,
    draws: int | None = None,
) -> float:
    r"""Rounds as a multiple of full participation at full rank.

    Source: method of arXiv 2505.23555, in the form derived in docs/theory.md. A second moment
    E[c^2] / E[c]^2 of the number of times c_n that client n counts in a round stands behind V: for
    independent sampling it is 1/(q_n pi_n); for K draws with replacement (ours, so that both are
    measured by one rule) (1 + (1 - p_n)/(K p_n)) / pi_n with p_n the chance of a draw.

    Args:
        sampling_probability: q, shape (N,); with `draws` the chance of one draw, sums to 1.
        sketch_rank: k, shape (N,).
        clients: data weights, availability, second moments of the updates.
        system: r, sketch, noise ratio.
        draws: None for independent sampling, else K.

    Example:
        >>> clients = Clients.from_columns(
        ...     data_weight=[1, 1], step_seconds=[1, 1], spectral_efficiency=[1, 1])
        >>> system = System(bandwidth_hz=1e6, lora_rank=8, noise_ratio=0.5)
        >>> relative_rounds(np.array([0.5, 0.5]), np.array([8.0, 8.0]), clients, system)
        1.3333333333333333
    """
    joins = sampling_probability
    if draws is not None:
        joins = 1.0 / (1.0 + (1.0 / sampling_probability - 1.0) / draws)
    noise = float(_noise_share(joins, sketch_rank, clients, system).sum())
    kappa, power = _weighted_inverse_ratio(sketch_rank, clients, system)
    return (1.0 + noise) / (1.0 + system.noise_ratio) * float(kappa.sum()) ** power


def log_objective(problem: Problem, decision: Decision) -> float:
    """Natural logarithm of (seconds of a round) x (rounds), for any decision.

    Where a decision has draws, the participants of a round are taken as independent.
    """
    q, k = decision.sampling_probability, decision.sketch_rank.astype(np.float64)
    seconds = exact_law(problem)(decision.participation_probability(), k)[0]
    rounds = relative_rounds(q, k, problem.clients, problem.system, decision.draws)
    return float(np.log(seconds) + np.log(rounds))


def rank_limit(problem: Problem) -> Floats:
    """Largest sketch rank of each client: whole, at most r, within its memory and energy.

    Within its energy: the budget must pay for q_min at that rank. 0 where not even rank 1 can be
    paid for; shape (N,).
    """
    clients, system = problem.clients, problem.system
    joules = clients.max_joules_per_round / problem.q_min - _joules(clients, system, 0.0)
    price = clients.upload_joules_per_bit * system.bits_per_rank
    with np.errstate(divide="ignore", invalid="ignore"):
        paid = np.where(price > 0, joules / price, np.copysign(np.inf, joules))
    most = np.minimum(np.minimum(clients.max_rank, system.lora_rank), paid * (1 + 1e-12))
    return np.asarray(np.maximum(np.floor(most), 0.0))


def probability_limit(problem: Problem, sketch_rank: Floats) -> Floats:
    """Largest sampling probability of each client: `q_max`, or what its energy budget pays for.

    Args:
        problem: clients and system.
        sketch_rank: k, shape (N,), real-valued, at most `rank_limit`.

    Returns:
        Shape (N,), in [q_min, 1].
    """
    joules = _joules(problem.clients, problem.system, sketch_rank)
    most = 1.0 if problem.q_max is None else problem.q_max
    pays = problem.clients.max_joules_per_round / np.where(joules > 0, joules, 1.0)
    return np.asarray(np.clip(np.where(joules > 0, pays, 1.0), problem.q_min, most))


def _joules(clients: Clients, system: System, sketch_rank: Floats | float) -> Floats:
    """Energy of one round that a client joins, J."""
    bits = upload_bits(system, sketch_rank)
    return system.local_steps * clients.step_joules + clients.upload_joules_per_bit * bits


def noise_weight(clients: Clients, system: System) -> Floats:
    """Return rho a_n^2 Gamma_n / (pi_n V_full), so that rho V / V_full = sum weight kappa / q."""
    share = clients.data_weight**2 * clients.update_second_moment
    return np.asarray(system.noise_ratio * share / share.sum() / clients.availability)


def _noise_share(q: Floats, k: Floats, clients: Clients, system: System) -> Floats:
    return noise_weight(clients, system) * (system.lora_rank / k) / q


def _weighted_inverse_ratio(k: Floats, clients: Clients, system: System) -> tuple[Floats, int]:
    """Return a_n kappa_n and the power p of their sum."""
    power = 1 if system.sketch.scaled_by == "client" else 0
    return clients.data_weight * (system.lora_rank / k), power
