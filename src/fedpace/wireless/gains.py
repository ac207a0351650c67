r"""Links that change within a round: each client's gain as a process in time.

`MarkovGains` is Gauss and Markov's in decibels: with slots of a quarter of the correlation time
tau_c, and r = e^{-1/4},

.. math:: x_{j+1} = r x_j + \sqrt{1 - r^2}\,\xi_j, \qquad
          g_j = e^{\sigma x_j - \sigma^2 / 2}, \quad \sigma = s_{dB} \ln 10 / 10,

so that E[g] = 1. `TraceGains` follows a recorded rate, each client from a place of its own. Both
are functions of seed and time alone: a run that resumes finds the same links.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.profile import Clients, Floats
from fedpace.core.rng import rng_for
from fedpace.wireless.channel import faded
from fedpace.wireless.gain_trace import GainTrace
from fedpace.wireless.links import GAIN_FLOOR, LINKS

__all__ = ["Gains", "MarkovGains", "TraceGains"]

_SLOTS_OF_CORRELATION = 4
"""Slots in a correlation time."""


class Gains(Protocol):
    """How the links of N clients change with time."""

    def at(self, seconds: float) -> tuple[Floats, float]:
        """Return the gains, shape (N,), and until when they hold, s."""

    def links(self, clients: Clients, gain: Floats) -> Clients:
        """Return the clients as they are at these gains."""


@dataclass(slots=True, eq=False)
class MarkovGains:
    """Power gains of mean 1, log-normal, correlated in time; independent from client to client."""

    seed: int
    num_clients: int
    deviation_db: float
    """Standard deviation, dB."""
    correlation_seconds: float
    """In which the correlation falls to 1/e, s."""
    _slot: int = field(default=-1, init=False)
    _state: Floats = field(init=False, repr=False, default_factory=lambda: np.zeros(0))

    def at(self, seconds: float) -> tuple[Floats, float]:
        """Return the gains, shape (N,), and until when they hold, s."""
        width = self.correlation_seconds / _SLOTS_OF_CORRELATION
        slot = int(seconds / width)
        if (slot + 1) * width <= seconds:  # rounding
            slot += 1
        if self._slot < 0 or slot < self._slot:
            self._slot, self._state = 0, self._drawn(0)
        keeps = float(np.exp(-1 / _SLOTS_OF_CORRELATION))
        while self._slot < slot:
            self._slot += 1
            self._state = keeps * self._state + np.sqrt(1 - keeps**2) * self._drawn(self._slot)
        spread = self.deviation_db * np.log(10) / 10
        gain = np.exp(spread * self._state - spread**2 / 2)
        return np.maximum(gain, GAIN_FLOOR), (slot + 1) * width

    def links(self, clients: Clients, gain: Floats) -> Clients:
        """Return the clients as they are at these gains: a power gain scales the signal."""
        return faded(clients, gain)

    def _drawn(self, slot: int) -> Floats:
        return rng_for(self.seed, "gains", slot).standard_normal(self.num_clients)


@dataclass(frozen=True, slots=True, eq=False)
class TraceGains:
    """Rates that follow a trace, over their mean; each client begins at a place of its own.

    The trace is taken as a ring, and a run may go around it once.
    """

    trace: GainTrace
    begins: Floats
    """Where on the trace each client is at time 0, shape (N,), s."""
    share_hz: float
    """Bandwidth at which a Shannon link has the rate of the trace, Hz."""

    @classmethod
    def drawn(cls, trace: GainTrace, seed: int, num_clients: int, share_hz: float) -> "TraceGains":
        """Draw where each client begins."""
        begins = rng_for(seed, "gains").random(num_clients) * trace.length_seconds
        return cls(trace, begins, share_hz)

    def at(self, seconds: float) -> tuple[Floats, float]:
        """Return the gains, shape (N,), and until when they hold, s."""
        trace, length = self.trace, self.trace.length_seconds
        if seconds >= length:
            raise InputError(
                f"[network] gain_trace = {trace.source!r} ends after {length:g} s and the run is "
                f"at {seconds:.4g} s; give a longer trace, or fewer rounds"
            )
        place = np.mod(self.begins + seconds, length)
        place = np.where(place < length, place, 0.0)
        following = np.searchsorted(trace.seconds, place, side="right")
        ends = np.append(trace.seconds, length)[following]
        wait = max(float((ends - place).min()), 1e-9 * length)
        return np.maximum(trace.at(place), GAIN_FLOOR), seconds + wait

    def links(self, clients: Clients, gain: Floats) -> Clients:
        """Return the clients as they are at these gains: so many times the rate."""
        name, value = clients.link
        return clients.with_link(name, LINKS[name].divided(value, 1 / gain, self.share_hz))
