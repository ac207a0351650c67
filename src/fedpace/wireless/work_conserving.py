r"""A band that never idles: divided anew whenever someone becomes ready to send or is done.

At every such moment those who are ready share the whole band so that all of them would end
together, as in `bandwidth`, with the bits that they have left; whoever is at its own limit gets
that limit, and what it leaves goes to the others. Nothing is kept for clients that still compute.

At constant spectral efficiency and without limits every division that never idles has the same
makespan, and none is shorter (docs/clock.md): with t_n = d_n / e_n, in the order of tau,

.. math:: V \leftarrow \max(V, \tau_n) + t_n / W, \qquad
    T = \max_j \Big(\tau_j + \sum_{i: \tau_i \ge \tau_j} t_i / W\Big).

With limits or Shannon links it is close to the least possible; how close is a test's to show.
"""

from collections.abc import Mapping

import numpy as np

from fedpace.core.profile import Floats
from fedpace.wireless.channel import bandwidth_for_rate, bandwidth_slope, rate_bps
from fedpace.wireless.links import LINKS

__all__ = ["finish_seconds"]

_NEWTON_STEPS = 60
_BAND_TOLERANCE = 1e-13
"""Part of the band by which the shares may miss it."""


def finish_seconds(
    start: Floats,
    bits: Floats,
    limit_hz: Floats,
    link: Mapping[str, Floats],
    total_hz: float,
) -> Floats:
    """When each participant of each of D rounds has sent everything.

    Args:
        start: tau, shape (D, M), s; infinite where a round has fewer than M participants.
        bits: d >= 0, shape (D, M), bit.
        limit_hz: most bandwidth that each can use, at most W, shape (D, M), Hz.
        link: one column as `channel` takes it, of shape (D, M).
        total_hz: W, Hz.

    Returns:
        Shape (D, M), s; infinite where `start` is.
    """
    order = np.argsort(start, axis=1, kind="stable")
    ((name, column),) = link.items()
    tau, left, limit, column = (
        np.take_along_axis(np.broadcast_to(each, start.shape), order, axis=1)
        for each in (start, bits, limit_hz, column)
    )
    if LINKS[name].proportional and np.all(limit >= total_hz):
        ends = _busy_period_ends(tau, LINKS[name].bandwidth_for_rate(left, column) / total_hz)
    else:
        ends = _event_by_event(tau, left.copy(), limit, name, column, total_hz)
    finish = np.empty_like(ends)
    np.put_along_axis(finish, order, ends, axis=1)
    return finish


def _busy_period_ends(tau: Floats, seconds: Floats) -> Floats:
    """Everyone whose uploads follow each other without a pause ends when the last of them does."""
    done = np.zeros(len(tau))
    ends = np.empty_like(tau)
    begins = np.empty(tau.shape, dtype=np.bool_)
    for j in range(tau.shape[1]):
        begins[:, j] = done <= tau[:, j]
        done = np.maximum(done, tau[:, j]) + seconds[:, j]
        ends[:, j] = done
    for j in range(tau.shape[1] - 2, -1, -1):
        ends[:, j] = np.where(begins[:, j + 1], ends[:, j], ends[:, j + 1])
    return np.where(seconds > 0, ends, tau)


def _event_by_event(
    tau: Floats, left: Floats, limit: Floats, name: str, column: Floats, total_hz: float
) -> Floats:
    """Divide anew at every start; between two of them nobody who could use more band becomes free.

    Whoever is not at its limit ends with the others, and whoever is gains nothing when they end.
    """
    ends = tau.copy()
    count = tau.shape[1]
    for j in range(count):
        now = tau[:, j]
        later = tau[:, j + 1] if j + 1 < count else np.full(len(tau), np.inf)
        rows = np.flatnonzero(np.isfinite(now) & (later > now))
        if len(rows) == 0:
            continue
        part = np.ix_(rows, np.arange(j + 1))
        waits, cap = left[part], limit[part]
        link = {name: column[part]}
        within, band = _shares(waits, cap, link, total_hz)
        rate = rate_bps(band, **link)
        sends = waits > 0
        lasts = np.where(sends, waits / np.where(rate > 0, rate, 1.0), 0.0)
        # Whoever is not at its limit ends with the others, to the bit.
        lasts = np.where(sends & (band < cap), within[:, None], lasts)
        gap = later[rows, None] - now[rows, None]
        ready = sends & (lasts <= gap)
        ends[part] = np.where(ready, now[rows, None] + lasts, ends[part])
        sent = np.where(np.isfinite(gap), rate * np.where(np.isfinite(gap), gap, 0.0), waits)
        left[part] = np.where(ready | ~sends, 0.0, np.maximum(waits - sent, 0.0))
    return ends


def _shares(
    bits: Floats, cap: Floats, link: Mapping[str, Floats], total_hz: float
) -> tuple[Floats, Floats]:
    """Seconds x after which all but those at their limit end together, and the band of each.

    x is the root of sum_n min(cap_n, b_n(bits_n / x)) = W, by Newton's method in a bracket; rows
    whose limits together fit the band need no root.
    """
    sends = bits > 0
    cap = np.where(sends, cap, 0.0)
    rows = cap.sum(axis=1) > total_hz
    seconds, band = np.zeros(len(bits)), cap.copy()
    if not rows.any():
        return seconds, band
    bits, cap, sends = bits[rows], cap[rows], sends[rows]
    here = {name: value[rows] for name, value in link.items()}

    def alone(width: Floats) -> Floats:
        rate = rate_bps(np.where(sends, width, 1.0), **here)
        return np.where(sends, bits / rate, np.nan)

    many = sends.sum(axis=1, keepdims=True)
    high = np.nanmax(alone(np.minimum(cap, total_hz / many)), axis=1)
    low = np.nanmin(alone(cap), axis=1)
    x, need = high, cap
    for _ in range(_NEWTON_STEPS):
        rate = bits / x[:, None]
        need = np.minimum(np.where(sends, bandwidth_for_rate(rate, **here), 0.0), cap)
        total = need.sum(axis=1)
        if np.all(np.abs(total - total_hz) <= _BAND_TOLERANCE * total_hz):
            break
        low, high = np.where(total > total_hz, x, low), np.where(total > total_hz, high, x)
        moves = sends & (need < cap)
        slope = bandwidth_slope(np.where(moves, rate, 0.0), **here)
        falls = np.sum(np.where(moves, slope * rate, 0.0), axis=1) / x
        held = np.sum(np.where(moves, 0.0, need), axis=1)
        free = total - held
        # Newton's method on 1 / sum, the limits that bind taken out: exact at constant efficiency.
        with np.errstate(divide="ignore", invalid="ignore"):
            step = x + free / (total_hz - held) * (total - total_hz) / falls
        inside = (step >= low) & (step <= high)
        new = np.where(inside, step, (low + high) / 2)
        if np.all(new == x):
            break
        x = new
    seconds[rows], band[rows] = x, need
    return seconds, band
