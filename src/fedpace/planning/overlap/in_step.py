"""Clients that stay in step, for whom a beat is not what the objective takes it for."""

import numpy as np

from fedpace.core.plan import Plan
from fedpace.core.profile import Clients, Floats

__all__ = ["in_step_share"]

_WHOLE = 0.02
"""Mean beats from one update to the next that are as near to a whole number are always as many: a
client that sometimes takes a beat more, for the band is taken, gets out of step."""


def in_step_share(plan: Plan, clients: Clients) -> float:
    """Return the largest share of the data whose updates all count in the same beats, in [0, 1].

    Whoever starts whenever it is idle and always answers has an update every c beats. All began
    together, at the first beat, so those of the same c count together for ever, and the c - 1 beats
    between have nothing of them. The objective takes each client to be anywhere in its cycle, as
    the others are in the long run; where most of the data is in step, such a plan is the round that
    waits, with a smaller server rate (measured: docs/log.md).

    Args:
        plan: of rounds that overlap, with its update rates.
        clients: for whom it was made.

    Returns:
        0 where no two clients of the same c above 1 are in step.
    """
    counted = plan.updates_per_beat()
    if counted is None:
        return 0.0
    cycle: Floats = 1 / np.maximum(counted, 1e-300)
    beats = np.round(cycle)
    sure = (plan.participation_probability() == 1) & (clients.availability == 1)
    steady = sure & (beats > 1) & (np.abs(cycle - beats) < _WHOLE)
    shares = [
        float(clients.data_weight[together].sum())
        for c in np.unique(beats[steady])
        if np.count_nonzero(together := steady & (beats == c)) > 1
    ]
    return max(shares, default=0.0)
