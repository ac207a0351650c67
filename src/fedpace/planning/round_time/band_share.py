"""How much of the band a client needs to end in time, and whether it can use that much."""

from collections.abc import Mapping

import numpy as np
from scipy.special import log_ndtr

from fedpace.core.profile import Floats
from fedpace.wireless.channel import bandwidth_for_rate, one_link

__all__ = ["band_share", "own_limit_acceptance"]

_LARGEST_SHARE = 60.0
"""A client that needs 60 bands can as well need infinitely many."""


def band_share(
    bits: Floats, left: Floats, link: Mapping[str, Floats], band: float
) -> tuple[Floats, Floats]:
    """Share of the band that sends `bits` in `left` seconds, and how fast it falls with time.

    Args:
        bits: d, shape (..., N).
        left: s - tau, shape (..., N), s; 0 or less where the client has not started to send.
        link: of the clients, one column of shape (N,).
        band: W, Hz.

    Returns:
        x = w / W, cut at 60, and -dx/ds, which is 0 where x is cut; each of shape (..., N).
    """
    rate = bits / np.where(left > 0, left, np.inf)
    load = bandwidth_for_rate(rate, **link)
    load /= band
    can = (load < _LARGEST_SHARE) & (left > 0)
    load = np.where(can, load, _LARGEST_SHARE)
    _, model, value = one_link(link)
    if model.proportional:
        fall = load / np.where(can, left, np.inf)
    else:
        slope = model.share_slope(load, band, value)
        fall = rate / np.where(can, slope * left, np.inf)
    return load, fall


def own_limit_acceptance(load: Floats, limit: Floats, spread: float) -> tuple[Floats, Floats]:
    """Chance that a client's own limit allows its load, and d/dx of its logarithm.

    The limit has a log-normal smoothing of its own, with E[1/xi] = 1 and the spread of the band's.

    Args:
        load: x, shape (M, N), share of the band.
        limit: c, shape (N,), share of the band; 1 or more does not bind.
        spread: of the smoothing.

    Returns:
        The chance and d ln chance / dx, each of shape (M, N).
    """
    own = limit < 1
    accept, slope = np.ones_like(load), np.zeros_like(load)
    x = load[:, own]
    y = np.maximum(spread / 2 - np.log(x / limit[own]) / spread, -30.0)
    log_accept = log_ndtr(y)
    accept[:, own] = np.exp(log_accept)
    slope[:, own] = -np.exp(-(y**2) / 2 - log_accept) / (np.sqrt(2 * np.pi) * spread * x)
    return accept, slope
