"""How fading spreads the demands of links about their mean: what a law of round times sees of it.

Planners see links with the mean demand over fading (`channel.mean_faded`). An upload over such a
link then needs a random multiple of its mean hertz-seconds, whose law depends on the link's
efficiency alone: 1/e'(g) over its mean, g the power gain of `channel.fading_gains`.
"""

from functools import cache
from itertools import pairwise

import numpy as np

from fedpace.core.profile import Floats
from fedpace.wireless.links import GAIN_FLOOR, ConstantEfficiency

__all__ = ["demand_values", "drawn_demands", "typical_share_hz"]

_LINK = ConstantEfficiency()
_STILL = np.geomspace(1e-3, 30.0, 400)
"""Efficiencies without fading, between which all is read off, bit/s/Hz."""
_POINTS = 200
"""Points of the midpoint rule within a value's part of the law of g."""


def typical_share_hz(bandwidth_hz: float, count: int) -> float:
    """Bandwidth at which Shannon links are matched to their mean over fading, Hz.

    Args:
        bandwidth_hz: W, Hz.
        count: N clients, of whom a fifth is thought to share the band.
    """
    return bandwidth_hz / max(1, count / 5)


def demand_values(mean_efficiency: Floats, count: int) -> tuple[Floats, Floats]:
    """Return M values that stand for the law of a demand over its mean, and their chances.

    Each value is the mean of a part of the law, so that their mean is 1. The first part is the gain
    at its floor, the others are as many times rarer as they are worse.

    Args:
        mean_efficiency: of links with the mean demand, shape (N,), bit/s/Hz.
        count: M, at least 2.

    Returns:
        Values, shape (N, M), largest first; chances, shape (M,).
    """
    table, chance = _table(count)
    at = np.log(mean_efficiency)
    mean = np.log(_mean())
    values = np.stack([np.interp(at, mean, column) for column in table], axis=-1)
    return values / (values @ chance)[:, None], chance


def drawn_demands(mean_efficiency: Floats, gains: Floats) -> Floats:
    """Return the demand over its mean at given gains.

    Args:
        mean_efficiency: of links with the mean demand, shape (N,), bit/s/Hz.
        gains: g, shape (..., N).
    """
    still = np.exp(np.interp(np.log(mean_efficiency), np.log(_mean()), np.log(_STILL)))
    return mean_efficiency / _LINK.faded(still, gains)


@cache
def _mean() -> Floats:
    return _LINK.mean_faded(_STILL, np.empty(0))


@cache
def _table(count: int) -> tuple[Floats, Floats]:
    """Values for each efficiency of `_STILL`, shape (M, 400), and their chances."""
    floor = -np.expm1(-GAIN_FLOOR)
    edges = np.append(0.0, floor ** np.linspace(1, 0, count))
    values = []
    for low, high in pairwise(edges.tolist()):
        middle = low + (np.arange(_POINTS) + 0.5) / _POINTS * (high - low)
        gains = np.maximum(-np.log1p(-middle), GAIN_FLOOR)
        values.append((_mean() / _LINK.faded(_STILL, gains[:, None])).mean(axis=0))
    return np.array(values), np.diff(edges)
