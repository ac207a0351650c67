"""Simulated seconds."""

import heapq
import itertools


class VirtualClock:
    """A heap of (time, order, event); `now` moves only when the next event is taken.

    Example:
        >>> clock = VirtualClock()
        >>> clock.schedule(2.0, "slow"); clock.schedule(0.5, "fast")
        >>> clock.next_event(), clock.next_event(), clock.now
        ('fast', 'slow', 2.0)
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        """Seconds since the run began."""
        self._events: list[tuple[float, int, object]] = []
        self._order = itertools.count()  # ties leave in the order they came

    def __len__(self) -> int:
        return len(self._events)

    def schedule(self, delay_seconds: float, event: object) -> None:
        """Let `event` happen `delay_seconds` from now."""
        heapq.heappush(self._events, (self.now + delay_seconds, next(self._order), event))

    def next_event(self) -> object:
        """Move to the next event and return it."""
        self.now, _, event = heapq.heappop(self._events)
        return event
