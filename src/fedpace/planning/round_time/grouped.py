r"""The round time of a large population, by groups of similar clients.

Beyond some thousand clients a group of neighbours in start time and upload time is as good as its
members. Let the members of a group have chances p_i and loads t_i. One client that stands for them
joins if any of them does, and has the same mean load:

.. math:: P = 1 - \prod_i (1 - p_i), \qquad X = \sum_i p_i t_i / P.

A group that hardly ever has two participants at once is met exactly. One that often has many loses
the spread of its load; that is a part 1 / sqrt(participants) of the load of all, which then are
thousands. Groups are kept, so the time is a smooth function of all q and k, with its derivatives by
the chain rule. Derived here; the error is measured in tests and in benchmarks/planner_speed.py.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from fedpace.core.profile import Clients, Floats, System
from fedpace.planning.round_time.band_smoothing import band_smoothing
from fedpace.planning.round_time.distribution import RoundTime, quadrature_of, round_time_of
from fedpace.planning.round_time.law import RoundLaw
from fedpace.planning.round_time.never_idle import NeverIdle
from fedpace.planning.round_time.quadrature import reaches
from fedpace.planning.round_time.upper_bound import solo_seconds
from fedpace.wireless.channel import bandwidth_for_rate, bandwidth_slope, rate_bps
from fedpace.wireless.fading import typical_share_hz
from fedpace.wireless.latency import start_seconds, start_seconds_per_rank, upload_bits
from fedpace.wireless.links import LINKS, ConstantEfficiency

__all__ = [
    "Groups",
    "group_clients",
    "grouped_mean_and_gradient",
    "grouped_quadrature",
    "grouped_quantile_and_gradient",
    "grouped_round_time",
]

_MEAN_TERMS = 8
"""Waves of the smoothing for a mean, as in `distribution`."""
_QUANTILE_TERMS = 32
"""Waves of the smoothing for a quantile, as in `distribution`."""
_LEAST_ABSENCE = 1e-15
"""Floor of 1 - p, as in `load_law`."""
_FINEST_CELL_WIDTH = 0.01
"""Width of the finest cells, in logarithms of times."""
_WIDTH_GROWTH = 1.2
"""Least factor by which cells are widened where there are too many."""
_WORTH_WIDTHS = 4.0
"""Width of a cell in the logarithm of the worth, in widths of time."""
_GROUP_LIMITS = 5000, 20_000
"""Between these is the number of groups where none is given."""
_SLOW_QUANTILES = (0.9, 0.99)
"""Quantiles of the time alone behind which cells are finer."""
_SLOW_FINENESS = 3.0
"""Cells are so many times finer behind each of these quantiles of the time alone: how long a round
can take is decided there."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """A population in groups of neighbours, at given ranks."""

    clients: Clients
    system: System
    order: NDArray[np.int64]
    """The clients, group after group, shape (N,)."""
    first: NDArray[np.int64]
    """Where each group begins in `order`, shape (M,)."""
    count: Floats
    """How many clients each one stands for, shape (N,); 1, unless each stands for a group."""
    width: float = 0.0
    """Width of a cell, in logarithms."""

    def at(self, sketch_rank: Floats) -> "Groups":
        """The same population in groups that are neighbours at other ranks."""
        if len(self.first) == len(self.order):
            return self
        order, first = _cells(*_coordinates(self.clients, self.system, sketch_rank, self.width))
        return replace(self, order=order, first=first)


def group_clients(
    clients: Clients,
    system: System,
    groups: int | None = None,
    worth: Floats | None = None,
) -> Groups:
    """Group clients by cells in the logarithms of start time and upload time.

    Times are taken at the largest ranks. Cells are of one size, and finer for the slowest clients,
    which decide how long a round can take.

    Args:
        clients: N clients.
        system: what they share.
        groups: at most so many; None: half as many as clients, within limits.
        worth: a further positive quantity, shape (N,), by which members should be alike, roughly.
    """
    most = np.floor(np.minimum(clients.max_rank, system.lora_rank))
    most_groups = int(np.clip(len(clients) // 2, *_GROUP_LIMITS)) if groups is None else groups
    width = _FINEST_CELL_WIDTH
    while True:
        cells = _coordinates(clients, system, most, width)
        if worth is not None:
            cells.append(np.rint(np.log(worth) / (_WORTH_WIDTHS * width)))
        order, first = _cells(*cells)
        if len(first) <= most_groups:
            return Groups(clients, system, order, first, np.ones(len(order)), width)
        # The number of cells falls with the third power of the width, or less.
        width *= max(_WIDTH_GROWTH, (len(first) / most_groups) ** (1 / 3))


def _coordinates(clients: Clients, system: System, rank: Floats, width: float) -> list[Floats]:
    """Whole numbers that tell cells apart: times at these ranks, largest rank, fineness."""
    start, alone = start_seconds(clients, system, rank), solo_seconds(clients, system, rank)
    upload = np.log(alone - start)
    # A start much shorter than the upload after it need not be told apart from 0.
    start = np.log(start + 0.01 * np.exp(upload))
    finer = _SLOW_FINENESS ** np.searchsorted(np.quantile(alone, _SLOW_QUANTILES), alone)
    most = np.floor(np.minimum(clients.max_rank, system.lora_rank))
    return [np.rint(start * finer / width), np.rint(upload * finer / width), most, finer]


def _cells(*columns: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order of the rows by cell, and where each cell begins; columns hold whole numbers."""
    key = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        number = (column - column.min()).astype(np.int64)
        key = key * (number.max() + 1) + number
    order = np.argsort(key, kind="stable")
    return order, np.flatnonzero(np.diff(key[order], prepend=-1))


@dataclass(frozen=True, slots=True, eq=False)
class _Merged:
    """One client for each group, and what the chain rule needs; members in the groups' order."""

    law: RoundLaw
    p: Floats
    start: Floats
    bits: Floats
    total: Floats
    """Sum of p, shape (M,)."""
    factor: Floats
    """Mean number of participants where there is one, sum of p over P, shape (M,)."""


def grouped_quadrature(groups: Groups, q: Floats, k: Floats) -> Floats:
    """Quadrature nodes for `grouped_mean_and_gradient` at plans near this one."""
    return quadrature_of(_merge(groups, q, k).law)


def grouped_mean_and_gradient(
    groups: Groups, q: Floats, k: Floats, *, quadrature: Floats | None = None
) -> tuple[float, Floats, Floats]:
    """`round_time.mean_and_gradient` of the merged population, with derivatives for each member."""
    merged = _merge(groups, q, k)
    overhead = groups.system.overhead_seconds
    if merged.law.allocation == "work-conserving":
        window = None if quadrature is None else float(quadrature[0])
        busy = NeverIdle.near(merged.law, window).mean()
        by_bits = busy.d_probability, busy.d_start, busy.d_bits
        return overhead + busy.value, *_to_members(groups, merged, busy.value, *by_bits)
    quadrature = merged.law.quadrature() if quadrature is None else quadrature
    at = merged.law.mean(quadrature, band_smoothing(_MEAN_TERMS))
    mean = float(reaches(quadrature) @ (1 - at.value))
    slopes = _to_members(groups, merged, mean, at.d_probability, at.d_start, at.d_bits)
    return overhead + mean, *slopes


def grouped_quantile_and_gradient(
    groups: Groups,
    probability: float,
    q: Floats,
    k: Floats,
    *,
    quadrature: Floats | None = None,
) -> tuple[float, Floats, Floats]:
    """`round_time.quantile_and_gradient` of the merged population, likewise."""
    merged = _merge(groups, q, k)
    overhead = groups.system.overhead_seconds
    if merged.law.allocation == "work-conserving":
        window = None if quadrature is None else float(quadrature[0])
        busy = NeverIdle.near(merged.law, window).quantile(probability)
        by_bits = busy.d_probability, busy.d_start, busy.d_bits
        return overhead + busy.value, *_to_members(groups, merged, busy.value, *by_bits)
    law, smoothing = merged.law, band_smoothing(_QUANTILE_TERMS)

    def excess(seconds: float) -> float:
        return float(law.cdf(np.array([seconds]), smoothing)[0]) - probability

    seconds = law.quadrature()
    value = law.cdf(seconds, smoothing)
    if value[0] >= probability:  # most rounds are empty
        return overhead, np.zeros(len(q)), np.zeros(len(q))
    i = int(np.argmax(value >= probability)) if value[-1] >= probability else len(value) - 1
    high = float(seconds[i])
    while excess(high) < 0:
        high *= 2
    root = float(brentq(excess, seconds[i - 1], high, xtol=1e-12 * high))
    at = law.gradient(root, smoothing)
    scale = -1 / at.d_seconds[0]
    slopes = _to_members(
        groups, merged, root, scale * at.d_probability, scale * at.d_start, scale * at.d_bits
    )
    return overhead + root, *slopes


def grouped_round_time(groups: Groups, q: Floats, k: Floats) -> RoundTime:
    """`round_time.round_time` of the merged population."""
    return round_time_of(_merge(groups, q, k).law, groups.system.overhead_seconds)


def _elasticity(law: RoundLaw, seconds: float) -> Floats:
    """D ln(band) / d ln(bits) of each merged client where it sends until the mean time; >= 1.

    1 at constant efficiency. For Shannon links it varies with the time; that it is taken at one
    time is the only step of the derivative that is not exact, and it concerns d D alone.
    """
    rate = law.bits / np.maximum(seconds - law.start, law.solo)
    band = bandwidth_for_rate(rate, **law.link)
    return np.asarray(bandwidth_slope(rate, **law.link) * rate / band)


def _merge(groups: Groups, q: Floats, k: Floats) -> _Merged:
    clients, system, order = groups.clients, groups.system, groups.order

    def total(column: Floats) -> Floats:
        return np.add.reduceat(column * count, groups.first)

    count = groups.count[order]
    p = (q * clients.availability)[order]
    start = start_seconds(clients, system, k)[order]
    bits = upload_bits(system, k)[order]
    name, link = clients.link[0], clients.link[1][order]
    model = LINKS[name]
    efficiency = None
    if system.fading:
        share = typical_share_hz(system.bandwidth_hz, round(count.sum()))
        each = rate_bps(share, **{name: link}) / share
        efficiency = total(p) / total(p / each)
    if model.proportional:  # only the demand counts; links need not be averaged
        bits, link = model.bandwidth_for_rate(bits, link), np.ones_like(link)
        name, model = "spectral_efficiency", ConstantEfficiency()
    sum_p = total(p)
    chance = -np.expm1(total(np.log(np.maximum(1 - p, _LEAST_ABSENCE))))
    factor = sum_p / chance
    limit = np.minimum((clients.max_bandwidth_hz / system.bandwidth_hz)[order], 1e6)
    limit = total(p * limit) / chance
    merged_bits = total(p * bits) / chance
    merged_link = model.side_by_side(total(p * link) / sum_p, factor)
    usable = np.minimum(limit, 1.0) * system.bandwidth_hz
    law = RoundLaw(
        probability=chance,
        start=total(p * start) / sum_p,
        solo=merged_bits / rate_bps(usable, **{name: merged_link}),
        bits=merged_bits,
        limit=limit,
        link={name: merged_link},
        band=system.bandwidth_hz,
        allocation=system.allocation,
        efficiency=efficiency,
    )
    return _Merged(law, p, start, bits, sum_p, factor)


def _to_members(
    groups: Groups,
    merged: _Merged,
    seconds: float,
    d_probability: Floats,
    d_start: Floats,
    d_bits: Floats,
) -> tuple[Floats, Floats]:
    """Chain rule from the merged clients to q and k of every member, about a time in `seconds`."""
    clients, system, order, law = groups.clients, groups.system, groups.order, merged.law
    sizes = np.diff(np.append(groups.first, len(order)))

    def spread(column: Floats) -> Floats:
        return np.repeat(column, sizes)

    bits = law.bits / merged.factor
    by_factor = d_bits / _elasticity(law, seconds) * bits
    by_chance = d_probability - by_factor * merged.factor / law.probability
    by_start, by_bits = d_start / merged.total, d_bits * merged.factor / merged.total
    others_absent = spread(1 - law.probability) / np.maximum(1 - merged.p, _LEAST_ABSENCE)
    d_p = spread(by_chance) * others_absent
    d_p += spread(by_factor / law.probability - by_start * law.start - by_bits * bits)
    by_start, by_bits = spread(by_start), spread(by_bits)
    d_p += by_start * merged.start + by_bits * merged.bits
    slope = start_seconds_per_rank(clients, system)[order]
    per_rank = np.full(len(order), system.bits_per_rank)
    name, link = clients.link
    if LINKS[name].proportional:  # bits of the merged clients are demands
        per_rank = LINKS[name].bandwidth_for_rate(per_rank, link[order])
    d_k = merged.p * (by_start * slope + by_bits * per_rank)
    by_q, by_k = np.empty_like(d_p), np.empty_like(d_k)
    by_q[order], by_k[order] = d_p, d_k
    return by_q * clients.availability * groups.count, by_k * groups.count
