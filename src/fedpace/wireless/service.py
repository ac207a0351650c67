"""A band that is never idle while someone is ready: who sends when, across rounds.

The one who was ready first is served first, with as much of the band as its own limit lets it use;
what is left goes to the next. At constant efficiency every division that never idles has the same
backlog at every moment, and this order the shortest mean wait of those that do not look at the
bits. Where links fade, the upload of which the least is left goes first: a client in a deep fade
would else hold up all others. Where links change meanwhile, those that stand well may go first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.profile import Clients, Floats
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.gains import Gains

__all__ = ["Sending", "serve", "serve_changing"]


@dataclass(frozen=True, slots=True)
class Sending:
    """One upload, before, in or after the band; times are on the clock of the run."""

    client: int
    ready_seconds: float
    """When it can begin to send, s."""
    bits_left: float
    began_seconds: float | None = None
    """When it was first served, s; None before."""
    arrived_seconds: float | None = None
    """When all of it was there, s; None before."""


def serve(
    uploads: Sequence[Sending],
    clients: Clients,
    total_hz: float,
    *,
    now: float,
    until: float,
    arrivals: int | None = None,
    first: Floats | None = None,
    shortest_first: bool = False,
) -> tuple[list[Sending], float]:
    """Let the band work for a while.

    Args:
        uploads: none of them arrived.
        clients: the links, as they are in that time.
        total_hz: W, Hz.
        now: seconds on the clock.
        until: when to stop, s; may be infinite.
        arrivals: stop at once after so many of them; by default only `until` counts.
        first: of the ready, those with the largest value are served first, shape (N,); by default
            those that were ready first.
        shortest_first: of the ready, those are served first that need the band for the shortest
            time from now on.

    Returns:
        The uploads as they stand then, in the same order, and when "then" is: `until`, or the last
        arrival if that comes first.

    Raises:
        InputError: an upload that was over before, or time that runs backwards.

    Example:
        >>> clients = Clients.from_columns(
        ...     data_weight=[1, 1], step_seconds=[1, 1], spectral_efficiency=[2.0, 1.0])
        >>> both = [Sending(0, 1.0, 4.0), Sending(1, 2.0, 3.0)]
        >>> later, then = serve(both, clients, 1.0, now=0.0, until=5.0)
        >>> then, [(u.bits_left, u.arrived_seconds) for u in later]
        (5.0, [(0.0, 3.0), (1.0, None)])
    """
    if until < now:
        raise InputError(f"until is {until:g} s and now {now:g} s; time runs forwards")
    state = list(uploads)
    if any(u.arrived_seconds is not None for u in state):
        raise InputError("an upload has arrived already; leave it out")
    waiting = sorted(range(len(state)), key=lambda i: (state[i].ready_seconds, state[i].client))
    limit = np.minimum(clients.max_bandwidth_hz, total_hz)
    alone = rate_bps(limit, **uplink(clients)) if shortest_first else None
    missing = len(state) if arrivals is None else arrivals
    while waiting and missing > 0:
        ready = [i for i in waiting if state[i].ready_seconds <= now]
        later = waiting[len(ready)] if len(ready) < len(waiting) else None
        if first is not None:
            ready.sort(key=lambda i: -float(first[state[i].client]))
        if alone is not None:
            ready.sort(key=lambda i: float(state[i].bits_left / alone[state[i].client]))
        rates, left = {}, total_hz
        for i in ready:
            if left <= 0:
                break
            width = min(left, float(limit[state[i].client]))
            rates[i] = float(rate_bps(width, **uplink(clients, state[i].client)))
            left -= width
        ends = {i: now + state[i].bits_left / rate for i, rate in rates.items()}
        event = min(
            [until, *ends.values()] + ([] if later is None else [state[later].ready_seconds])
        )
        for i, rate in rates.items():
            upload = state[i]
            began = now if upload.began_seconds is None else upload.began_seconds
            done = ends[i] <= event
            state[i] = replace(
                upload,
                bits_left=0.0 if done else max(upload.bits_left - rate * (event - now), 0.0),
                began_seconds=began,
                arrived_seconds=event if done else None,
            )
            if done:
                waiting.remove(i)
                missing -= 1
        now = event
        if now >= until:
            return state, until
    return state, until if arrivals is None or missing > 0 else now


def serve_changing(
    uploads: Sequence[Sending],
    clients: Clients,
    gains: Gains,
    total_hz: float,
    *,
    now: float,
    until: float,
    arrivals: int | None = None,
    best_first: bool = False,
) -> tuple[list[Sending], float]:
    """Let the band work while the links change; as `serve` from one change to the next.

    Args:
        uploads: none of them arrived.
        clients: the links as they are on average.
        gains: how they change.
        total_hz: W, Hz.
        now: seconds on the clock.
        until: when to stop, s; may be infinite.
        arrivals: stop at once after so many of them.
        best_first: serve those first whose link is best against its own average; else those who
            were ready first.

    Returns:
        As `serve`.
    """
    state, missing = list(uploads), len(uploads) if arrivals is None else arrivals
    while now < until:
        left = [i for i, u in enumerate(state) if u.arrived_seconds is None]
        if not left or missing <= 0:
            break
        gain, ends = gains.at(now)
        served, then = serve(
            [state[i] for i in left], gains.links(clients, gain), total_hz,
            now=now, until=min(until, ends), arrivals=missing, first=gain if best_first else None,
        )  # fmt: skip
        for i, upload in zip(left, served, strict=True):
            state[i] = upload
        missing -= sum(u.arrived_seconds is not None for u in served)
        now = then
    return state, until if arrivals is None and np.isfinite(until) else now
