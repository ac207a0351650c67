r"""Shares of the mean that are not those of the data: a bounded bias, for less delay and noise.

Where client n has the share p_n in place of a_n, what a beat aggregates points off the gradient. Of
a step's progress 1 - B is left (docs/theory.md, 9.4), with

.. math:: B = (1 - \beta) \sum_n \frac{\Gamma_n}{\|u\|^2} (p_n - a_n)^2,

and the time needed is J / (1 - B), delay and noise of J being those of p. For a given schedule the
best shares are exact: the numerator is a convex quadratic in p and 1 - B a concave one, so the
ratio is minimised by Dinkelbach's method, each step of which is a water-filling. Shares and
schedule take turns.
"""

from dataclasses import dataclass, replace

import numpy as np

from fedpace.core.profile import Floats
from fedpace.planning.overlap.fleet import Fleet, fleet_of
from fedpace.planning.overlap.law import QueueLaw
from fedpace.planning.overlap.objective import BATCH_NOISE, Cost, regularity
from fedpace.planning.overlap.planner import FEW_CLIENTS, overlapping
from fedpace.planning.overlap.schedule import OverlappingSchedule
from fedpace.planning.overlap.step import THETA
from fedpace.planning.solver.objective import Problem

__all__ = ["Biased", "best_weights", "bias_if_alike", "bias_of", "overlapping_with_bias"]

LEAST_SHARE = 0.01
"""Least p_n over a_n: nobody is left out altogether."""
_MOST_TURNS = 4
"""Times that shares and schedule take turns."""
_LEAST_GAIN = 2e-3
"""Relative gain of a turn below which it was the last, and of a bias below which there is none."""
_BISECTIONS = 80
"""Halvings of an interval, and steps of Dinkelbach's method, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Biased:
    """A schedule, whose cost is that with the bias, and the shares that it is for."""

    schedule: OverlappingSchedule
    weight: Floats | None
    """p_n, shape (N,); None: a_n, as no bias pays."""
    bias: float
    """B."""


def bias_of(fleet: Fleet, weight: Floats) -> float:
    """Return B: the squared bias of a beat's mean over the squared mean update.

    An estimate, for clients that differ from each other independently: (59) of docs/theory.md.

    Args:
        fleet: the clients, with a_n.
        weight: p_n, shape (N,).
    """
    apart = weight / fleet.data_weight - 1
    return float((1 - BATCH_NOISE) * (fleet.members * fleet.noise) @ apart**2)


def bias_if_alike(fleet: Fleet, weight: Floats) -> float:
    """Return the most that B could be: all who lose share differ from the others alike.

    Args:
        fleet: the clients, with a_n.
        weight: p_n, shape (N,).
    """
    moved = np.abs(weight - fleet.data_weight)
    each = (1 - BATCH_NOISE) * fleet.noise / fleet.data_weight**2
    return float(fleet.members @ moved) * float((fleet.members * moved) @ each)


def best_weights(
    fleet: Fleet, law: QueueLaw, rank: Floats, max_bias: float, theta: float = THETA
) -> Floats:
    """Return the shares of least time for a schedule whose law is known.

    Args:
        fleet: the clients, with a_n.
        law: rates and ages.
        rank: k, shape (N,), real-valued.
        max_bias: largest B, in (0, 1).
        theta: price of the delay.

    Returns:
        p_n, shape (N,), sums to 1 over all members.
    """
    a, crowd = fleet.data_weight, fleet.members
    each = fleet.noise / a**2
    late = theta * (law.age_beats - 1)
    noise = each * (fleet.lora_rank / rank / law.chance - regularity(law.age_beats, law.chance))
    apart = each * (1 - BATCH_NOISE)

    def at(price: float) -> Floats:
        """The shares that minimise numerator + price x bias."""
        steep = 2 * (noise + price * apart)

        def filled(level: float) -> Floats:
            best = (level - late + 2 * price * apart * a) / steep
            return np.asarray(np.maximum(best, LEAST_SHARE * a))

        low, high = float((late - 2 * price * apart * a).min()), float((late + steep).max())
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if crowd @ filled(middle) < 1 else (low, middle)
        shares = filled(high)
        return np.asarray(shares / float(crowd @ shares))

    def beats(shares: Floats) -> float:
        """The numerator: beats needed, but for the bias."""
        return float(1 + (crowd * shares) @ late + (crowd * shares**2) @ noise)

    price = beats(a)
    for _ in range(_BISECTIONS):
        p = at(price)
        before = price
        price = beats(p) / (1 - bias_of(fleet, p))
        if price > before * (1 - 1e-9):
            break
    if bias_of(fleet, p) <= max_bias:
        return p
    low, high = np.log(price), np.log(price) + 40  # shares fall back to a_n as it grows
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        enough = bias_of(fleet, at(float(np.exp(middle)))) <= max_bias
        low, high = (low, middle) if enough else (middle, high)
    return at(float(np.exp(high)))


def overlapping_with_bias(
    problem: Problem,
    max_bias: float,
    beat_seconds: float | None = None,
    theta: float = THETA,
    *,
    round_seconds: float | None = None,
    polish: bool = True,
) -> Biased:
    """Return the best schedule of overlapping rounds whose bias is at most `max_bias`.

    Args:
        problem: as for `overlapping`.
        max_bias: largest B, in [0, 1); 0: no bias.
        beat_seconds: as for `overlapping`.
        theta: price of the delay.
        round_seconds: as for `overlapping`.
        polish: as for `overlapping`.
    """

    def planned(weight: Floats | None, polish: bool) -> OverlappingSchedule:
        return overlapping(
            problem, beat_seconds, theta, round_seconds=round_seconds, polish=polish,
            weight=weight,
        )  # fmt: skip

    if max_bias == 0 or problem.system.noise_ratio == 0:  # how far they differ is not known
        return Biased(planned(None, polish), None, 0.0)
    made = plain = planned(None, False)
    best, fleet = Biased(plain, None, 0.0), fleet_of(problem.clients, problem.system)
    for _ in range(_MOST_TURNS):
        rank = made.sketch_rank.astype(np.float64)
        weight = best_weights(fleet, made.law, rank, max_bias, theta)
        made, bias = planned(weight, False), bias_of(fleet, weight)
        made = replace(made, cost=_slowed(made.cost, bias))
        before = best.schedule.cost.objective_seconds
        if made.verdict != best.schedule.verdict or made.cost.objective_seconds >= before:
            break  # other verdicts: one of both breaks a limit
        best = Biased(made, weight, bias)
        if made.cost.objective_seconds > before * (1 - _LEAST_GAIN):
            break
    if best.schedule.cost.objective_seconds > plain.cost.objective_seconds * (1 - _LEAST_GAIN):
        best = Biased(plain, None, 0.0)
    if not (polish and len(problem.clients) <= FEW_CLIENTS):
        return best
    made = planned(best.weight, True)
    return replace(best, schedule=replace(made, cost=_slowed(made.cost, best.bias)))


def _slowed(cost: Cost, bias: float) -> Cost:
    """Return a cost where 1 - bias is left of a beat's progress."""
    return replace(
        cost, objective_seconds=cost.objective_seconds / (1 - bias),
        relative_beats=cost.relative_beats / (1 - bias),
    )  # fmt: skip
