r"""The best schedule of overlapping rounds: beat, start probabilities and ranks.

For a given beat D and a given use u of the band the best update rates are a water-filling,

.. math:: f_n D = \min\Big(\text{cap}_n, \sqrt{\frac{v_n \kappa_n}{\mu\, s_n + v_n r_n}}\Big),
          \qquad \sum_n f_n s_n = u,

v_n (kappa_n / (f_n D) + r_n f_n D) being the noise of client n that its rate decides, r_n its
`regularity_loss` and s_n what its upload takes of the band; the cap is that of a client that starts
whenever it is idle, or of its energy. Beat and use are searched. Thousands of clients are searched
for as groups, and the rates of the members follow.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedpace.core.profile import Floats
from fedpace.planning.overlap.fleet import Fleet, fleet_of, grouped_fleet
from fedpace.planning.overlap.law import QueueLaw, queue_law_at
from fedpace.planning.overlap.objective import cost_of, regularity, regularity_loss
from fedpace.planning.overlap.polish import polished
from fedpace.planning.overlap.schedule import OverlappingSchedule, scheduled
from fedpace.planning.overlap.step import THETA
from fedpace.planning.solver.objective import Problem, rank_limit

__all__ = ["FEW_CLIENTS", "overlapping"]

_GROUPED_BEYOND_CLIENTS = 3000
"""Beyond so many clients groups are searched for."""
_FIRST_USES = (0.4, 0.7, 0.9)
"""Uses of the band that are tried first."""
_USES_WITHIN = (0.05, 0.2, 0.4, 0.6, 0.8)
"""Uses that are tried in their place where ages are limited: the limit ends the useful ones."""
_SHARES_OF_LIMIT = (1.0, 0.92)
"""What a number of beats may take of the limit on ages: all of it, or a little less."""
_FIRST_BEATS = 8
"""Lengths of a beat that are tried first."""
_LARGEST_USE = 0.95
"""Largest use of the band that the search goes to."""
_AGE_PASSES = 3
"""Times that rates and ages are made to agree at a point."""
_MOST_RANKS = 12
"""Ranks that are compared for a client, at most."""
FEW_CLIENTS = 16
"""Up to so many clients every probability is polished by itself."""
_STARTS_OF_CLIENTS = 6
"""Polishing begins at this number over that of the clients of points: it ends at the nearest best
schedule, and small fleets, whose uploads meet or miss each other, have several."""
_ALIKE = 0.15
"""Beats whose logarithms differ by less are one place to begin at."""
_WIDER = 12.0
"""By how much the logarithm of the least price of the band lies below that without `regularity`."""
_LIMIT_BEATS = (1, 2, 3, 4, 6, 9, 13)
"""Numbers of beats into which the p95 limit is divided."""
_LATE_SHARE = 0.05
"""Share of the updates that may come later than the p95 limit."""
_SHORTEST_BEAT_ROUNDS = 0.25
"""Shortest beat, over the mean round that waits; shorter ones promise a little more and brought
nothing (docs/log.md)."""
_SHORTEST_BEAT_SHARE = 1 / 8
"""Shortest beat, over the time of the slowest client, where none is given."""


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    beat: float
    use: float
    chance: Floats
    rank: Floats
    age: Floats
    value: float
    late: float
    """p95 age beyond its limit, s; 0 where it keeps it."""


class _Search:
    """Points that were tried, for one fleet."""

    def __init__(self, problem: Problem, fleet: Fleet, most: Floats, theta: float) -> None:
        self.fleet, self.most, self.theta = fleet, most, theta
        self.q_min, self.limit = problem.q_min, problem.p95_limit_seconds
        self.best: _Point | None = None
        self.of_beat: dict[float, _Point] = {}
        self.tried = 0
        self.law: QueueLaw | None = None

    def at(self, beat: float, use: float, passes: int = _AGE_PASSES) -> float:
        """Try a beat and a use of the band; remember the best."""
        fleet, theta = self.fleet, self.theta
        rank = self.most.copy()
        age = fleet.age_alone(rank, beat)
        mean_wait = 0.0
        for _ in range(passes):
            cap, floor = self._range(rank, age, beat)
            chance = _water_filling(fleet, rank, age, cap, floor, use * beat)
            rank = self._ranks(chance, rank, age, cap, beat, mean_wait)
            chance = _water_filling(fleet, rank, age, cap, floor, use * beat)
            chance = self._in_time(chance, age, beat)
            law = self.law = _law_at(fleet, rank, chance, beat, self.law)
            age = law.age_beats
            mean_wait = float(np.mean(age - fleet.age_alone(rank, beat)))
        cap, floor = self._range(rank, age, beat)
        chance = np.clip(chance, np.minimum(floor, cap), cap)
        law = replace(law, chance=chance, age_beats=age)
        value, late = cost_of(fleet, law, rank, theta).objective_seconds, 0.0
        if self.limit is not None:
            late = max(law.p95_age_seconds() - self.limit * (1 + 1e-9), 0.0)
        value = np.inf if late else value
        self.tried += 1
        point = _Point(beat, use, chance, rank, age, value, late)
        before = self.of_beat.get(beat)
        if before is None or (late, value) < (before.late, before.value):
            self.of_beat[beat] = point
        if self.best is None or (late, value) < (self.best.late, self.best.value):
            self.best = point
        return value

    def apart(self, count: int) -> list[_Point]:
        """Return the best points whose beats are not alike, the best first, `count` at most."""
        kept: list[_Point] = []
        for point in sorted(self.of_beat.values(), key=lambda each: each.value):
            near = (abs(np.log(point.beat / each.beat)) < _ALIKE for each in kept)
            if np.isfinite(point.value) and len(kept) < count and not any(near):
                kept.append(point)
        return kept

    def _range(self, rank: Floats, age: Floats, beat: float) -> tuple[Floats, Floats]:
        """Most and least updates a beat: asked whenever idle, and with q_min."""
        p, paid = self.fleet.availability, self.fleet.most_often(rank, beat)
        floor = 1 / (age + 1 / (p * self.q_min) - 1)
        return np.minimum(1 / (age + 1 / p - 1), paid), np.minimum(floor, paid)

    def _in_time_at(self, rank: Floats, beat: float, late: float) -> NDArray[np.bool_]:
        """Whether updates of that rank keep the p95 limit, if they wait as long as the mean."""
        if self.limit is None:
            return np.ones(len(rank), dtype=np.bool_)
        age = self.fleet.age_alone(rank, beat) + late
        return np.asarray(age * beat <= self.limit * (1 + 1e-9))

    def _in_time(self, chance: Floats, age: Floats, beat: float) -> Floats:
        """Let those who are later than the p95 limit make up a twentieth of the updates at most."""
        if self.limit is None:
            return chance
        late = age * beat > self.limit * (1 + 1e-9)
        weight = self.fleet.members * chance
        allowed = 0.98 * _LATE_SHARE / (1 - _LATE_SHARE) * float(weight[~late].sum())
        there = float(weight[late].sum())
        return np.where(late, chance * min(1.0, allowed / there), chance) if there else chance

    def _ranks(
        self, chance: Floats, rank: Floats, age: Floats, cap: Floats, beat: float, late: float
    ) -> Floats:
        """Each client's best rank at the price of the band that its rate reveals."""
        fleet, theta = self.fleet, self.theta
        work = fleet.work_seconds(rank)
        kappa = fleet.lora_rank / rank
        inside = (chance < cap * (1 - 1e-9)) & (chance > 0)
        prices = fleet.noise * np.maximum(kappa / chance**2 - regularity_loss(age), 0.0) / work
        price = float(np.median(prices[inside]) if np.any(inside) else np.min(prices))
        weight = fleet.members * fleet.data_weight
        share = fleet.members * fleet.share
        mean_kappa = float(share @ kappa / share.sum())
        age = fleet.age_alone(rank, beat) + late
        total = 1 + theta * float(weight @ (age - 1))
        total += float((fleet.members * fleet.noise) @ (kappa / chance - regularity(age, chance)))
        in_time = self._in_time_at(np.ones_like(rank), beat, late)
        best, found = np.full(len(fleet), np.inf), rank
        most = int(self.most.max())
        tried = np.arange(1, most + 1)
        if most > _MOST_RANKS:
            tried = np.unique(np.geomspace(1, most, _MOST_RANKS).round())
        for k in [*tried, None]:
            level = self.most if k is None else np.minimum(float(k), self.most)
            each = fleet.lora_rank / level
            alone = fleet.age_alone(level, beat) + late
            top = np.minimum(
                1 / (alone + 1 / fleet.availability - 1), fleet.most_often(level, beat)
            )
            need = fleet.work_seconds(level)
            rate = np.minimum(_rate_at(fleet, each, alone, price * need), top)
            noise = each / rate - regularity(alone, rate)
            value = theta * fleet.data_weight * alone + fleet.noise * noise + price * rate * need
            if fleet.power:
                value = value + total / mean_kappa * fleet.share * each
            value = np.where(in_time & ~self._in_time_at(level, beat, late), np.inf, value)
            better = value < best * (1 - 1e-12)
            best = np.where(better, value, best)
            found = np.where(better, level, found)
        return found


def overlapping(
    problem: Problem,
    beat_seconds: float | None = None,
    theta: float = THETA,
    *,
    round_seconds: float | None = None,
    polish: bool = True,
    weight: Floats | None = None,
) -> OverlappingSchedule:
    """Return the best schedule of overlapping rounds.

    Args:
        problem: clients, system, q_min; its p95_limit_seconds is the limit on the p95 age of the
            updates.
        beat_seconds: D where it is given, s; None to plan it.
        theta: price of the delay.
        round_seconds: mean round that waits, s: a quarter of it is the shortest beat that is
            planned, besides the server's overhead, and a client's energy is for so long; None: an
            eighth of the slowest client's time, and energy is for a beat.
        polish: where clients are few, move every probability by itself at the end.
        weight: as for `fleet_of`.

    Returns:
        The schedule, with its law; verdict "converged", or "infeasible: ..." and why.
    """
    clients, system = problem.clients, problem.system
    single, most = fleet_of(clients, system, weight, round_seconds), rank_limit(problem)
    crowd = len(clients) > _GROUPED_BEYOND_CLIENTS
    fleet = grouped_fleet(single, clients, system) if crowd else single
    least = np.minimum(fleet.max_rank, system.lora_rank) if crowd else most
    search = _Search(problem, fleet, least, theta)
    shortest = _shortest_beat(fleet, least, round_seconds)
    _search(search, beat_seconds, shortest)
    best = _best_of(search)
    tried = search.tried
    if crowd:
        every = _Search(problem, single, most, theta)
        every.at(best.beat, best.use, passes=2)
        tried += every.tried
        best = _best_of(every)
    schedule = _made_of(best, problem, single, theta)
    if polish and len(clients) <= FEW_CLIENTS and np.isfinite(best.value):
        others = search.apart(max(1, _STARTS_OF_CLIENTS // len(clients)))[1:]
        for start in (schedule, *(_made_of(each, problem, single, theta) for each in others)):
            made, more = polished(
                problem, single, most, start, None if beat_seconds else shortest, theta
            )
            tried += more
            if made.cost.objective_seconds < schedule.cost.objective_seconds:
                schedule = made
    verdict = "converged"
    if not np.isfinite(best.value):
        verdict = (
            f"infeasible: the p95 age of the updates is {schedule.law.p95_age_seconds():.4g} s, "
            f"above the limit of {problem.p95_limit_seconds:g} s; raise the limit, lower q_min, "
            "or drop slow clients"
        )
    return OverlappingSchedule(
        schedule.beat_seconds, schedule.start_probability, schedule.sketch_rank, schedule.law,
        schedule.cost, verdict, {"schedules_tried": float(tried)},
    )  # fmt: skip


def _made_of(point: _Point, problem: Problem, fleet: Fleet, theta: float) -> OverlappingSchedule:
    paid = fleet.most_often(point.rank, point.beat)
    # Energy that pays for q_min once a round may pay for less at a beat, of which a round has more.
    least_q = np.where(point.chance < paid * (1 - 1e-9), problem.q_min, 0.0)
    q = _start_probability(fleet, point.chance, point.age, least_q)
    return scheduled(fleet, q, point.rank, point.beat, theta)


def _search(search: _Search, beat_seconds: float | None, shortest: float) -> None:
    fleet = search.fleet
    longest = max(float(fleet.alone_seconds(search.most).max()) * 1.01, shortest)
    if beat_seconds is None:
        beats = np.geomspace(shortest, longest * 1.5, _FIRST_BEATS)
    else:
        beats = np.array([beat_seconds])
    step = np.log(beats[1] / beats[0]) if len(beats) > 1 else 0.0
    uses: tuple[float, ...] = _FIRST_USES
    if search.limit is not None:  # no update is younger than a beat; the first tells by how much
        uses = _USES_WITHIN
        beats = np.append(beats[0], beats[1:][beats[1:] <= search.limit])
    for beat in (*beats, *_beats_within(search.limit, fleet.overhead_seconds, beat_seconds)):
        before = np.inf
        for use in uses:
            value = search.at(float(beat), use, passes=2)
            if value > 1.02 * before:
                break
            before = min(before, value)
    span = 0.15
    for _ in range(2):
        best = _best_of(search)
        for change in (-1.0, 1.0, -0.5, 0.5):
            use = min(best.use + change * span * (1 - best.use + 0.1), _LARGEST_USE)
            if use > 0.01:
                search.at(best.beat, use)
        best = _best_of(search)
        if step:
            for change in (-0.66, -0.33, 0.33, 0.66):
                search.at(max(shortest, best.beat * np.exp(change * step)), best.use)
        step, span = step / 2.5, span / 2.5


def _beats_within(limit: float | None, shortest: float, given: float | None) -> Floats:
    """Beats of which some make the p95 limit: ages are whole beats, so others may just miss it.

    They may be shorter than is planned without a limit.
    """
    if limit is None or given is not None:
        return np.empty(0)
    beats = np.divide.outer(limit * np.array(_SHARES_OF_LIMIT), _LIMIT_BEATS).ravel()
    return beats[beats >= shortest]


def _best_of(search: _Search) -> _Point:
    if search.best is None:
        raise RuntimeError("nothing was tried")
    return search.best


def _shortest_beat(fleet: Fleet, most: Floats, round_seconds: float | None) -> float:
    if round_seconds is not None:
        return max(fleet.overhead_seconds, _SHORTEST_BEAT_ROUNDS * round_seconds)
    slowest = float(fleet.alone_seconds(most).max())
    return max(fleet.overhead_seconds, slowest * _SHORTEST_BEAT_SHARE)


def _law_at(
    fleet: Fleet, rank: Floats, chance: Floats, beat: float, start: QueueLaw | None
) -> QueueLaw:
    members = None if np.all(fleet.members == 1) else fleet.members
    return queue_law_at(
        chance, fleet.ready_seconds(rank), fleet.work_seconds(rank), beat,
        fleet.lag_seconds(rank), members, start,
    )  # fmt: skip


def _rate_at(fleet: Fleet, kappa: Floats, age: Floats, cost: Floats) -> Floats:
    """The rate of least noise where an update costs so much."""
    return np.asarray(np.sqrt(fleet.noise * kappa / (cost + fleet.noise * regularity_loss(age))))


def _water_filling(
    fleet: Fleet, rank: Floats, age: Floats, cap: Floats, floor: Floats, load_seconds: float
) -> Floats:
    """The rates that take so much of the band in a beat, or all that the caps allow."""
    need, kappa = fleet.work_seconds(rank), fleet.lora_rank / rank
    work = fleet.members * need
    # Prices between which some rate is inside its limits.
    low = np.log(np.min(fleet.noise * kappa / (cap**2 * need))) - _WIDER
    high = np.log(np.max(fleet.noise * kappa / (floor**2 * need)))
    for _ in range(50):
        middle = (low + high) / 2
        rate = np.clip(_rate_at(fleet, kappa, age, np.exp(middle) * need), floor, cap)
        low, high = (low, middle) if rate @ work < load_seconds else (middle, high)
        if high - low < 1e-9:
            break
    return np.asarray(np.clip(_rate_at(fleet, kappa, age, np.exp(high) * need), floor, cap))


def _start_probability(fleet: Fleet, chance: Floats, age: Floats, least: Floats) -> Floats:
    """The chance to be asked that gives these rates."""
    idle = 1 / chance - age + 1
    return np.asarray(np.clip(1 / np.maximum(idle * fleet.availability, 1e-12), least, 1.0))
