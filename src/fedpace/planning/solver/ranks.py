r"""Sketch ranks for given sampling probabilities: closed form, rounding, repair.

Near a point the logarithm of the objective is, in dx = log of the change of q_n and dy of k_n,
close to a sum over clients of

.. math:: B e^{-dx-dy} + P e^{-dy} + A_{xy} e^{dx+dy} + (A_x - A_{xy}) e^{dx}
    + (A_y - A_{xy}) e^{dy}

with B and P the two elasticities of the rounds (noise; smoothness), A_x and A_y those of the time
in q and k, and A_xy the part of them that comes from bits sent, which only q k decides. So a rank
can be rounded at almost no cost where q can take up the change.
"""

import numpy as np
from numpy.typing import NDArray

from fedpace.core.profile import Floats
from fedpace.planning.solver.objective import Point, Problem, probability_limit, rank_limit

__all__ = ["better_ranks", "relaxed_ranks", "rounded_ranks"]


def relaxed_ranks(problem: Problem, point: Point, sketch_rank: Floats) -> Floats:
    """Real-valued ranks that balance both elasticities of each client at fixed prices and q.

    Args:
        problem: gives the limits.
        point: the objective at (q, k).
        sketch_rank: k, shape (N,).
    """
    costs = point.time_by_k > 0
    ratio = point.rounds_by_k / np.where(costs, point.time_by_k, 1.0)
    most = rank_limit(problem)
    return np.clip(np.where(costs, sketch_rank * np.sqrt(ratio), most), 1.0, most)


def rounded_ranks(
    problem: Problem, point: Point, sampling_probability: Floats, sketch_rank: Floats
) -> tuple[Floats, Floats]:
    """Round each rank up or down, whichever the model above prefers once q has followed.

    Args:
        problem: gives the limits.
        point: the objective at (q, k).
        sampling_probability: q, shape (N,).
        sketch_rank: k, shape (N,), real-valued.

    Returns:
        q and whole k.
    """
    down = np.floor(sketch_rank)
    up = np.minimum(np.ceil(sketch_rank), rank_limit(problem))
    q_down, cost_down = _follow(problem, point, sampling_probability, sketch_rank, down)
    q_up, cost_up = _follow(problem, point, sampling_probability, sketch_rank, up)
    lower = cost_down < cost_up
    return np.where(lower, q_down, q_up), np.where(lower, down, up)


def better_ranks(
    problem: Problem, point: Point, sampling_probability: Floats, sketch_rank: Floats
) -> tuple[Floats, Floats, Floats]:
    """Move each whole rank by one where the model promises a gain.

    Args:
        problem: gives the limits.
        point: the objective at (q, k).
        sampling_probability: q, shape (N,).
        sketch_rank: k, shape (N,), whole.

    Returns:
        Best neighbouring q and k of each client, and the promised change of the logarithm of the
        objective, below 0 where it is worth trying; shape (N,) each.
    """
    q, k, change = sampling_probability, sketch_rank, np.zeros(len(sketch_rank))
    stay = _follow(problem, point, sampling_probability, sketch_rank, sketch_rank)[1]
    for step in (-1.0, 1.0):
        moved = np.clip(sketch_rank + step, 1.0, rank_limit(problem))
        follows, cost = _follow(problem, point, sampling_probability, sketch_rank, moved)
        better = (cost - stay < change) & (moved != sketch_rank)
        q, k = np.where(better, follows, q), np.where(better, moved, k)
        change = np.where(better, cost - stay, change)
    return q, k, change


def _follow(
    problem: Problem, point: Point, q: Floats, k: Floats, new_k: Floats
) -> tuple[Floats, Floats]:
    """Best q once k has become `new_k`, and the model's value there, for each client alone."""
    growth = new_k / k
    noise, smooth = point.rounds_by_q, point.rounds_by_k - point.rounds_by_q
    by_q = np.maximum(point.time_by_q, 0.0)
    sent = np.clip(point.time_by_k, 0.0, by_q)
    price = sent * growth + by_q - sent
    wanted = np.sqrt(noise / growth / np.where(price > 0, price, np.inf))
    wanted = np.where(price > 0, wanted, np.inf)
    change = np.clip(wanted, problem.q_min / q, probability_limit(problem, new_k) / q)
    value = noise / growth / change + price * change + smooth / growth
    return change * q, value + (point.time_by_k - sent) * growth


def whole(sketch_rank: Floats) -> NDArray[np.int64]:
    """Ranks that are whole already, as integers."""
    return np.rint(sketch_rank).astype(np.int64)
