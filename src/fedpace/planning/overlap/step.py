r"""How large a server step a beat allows.

With u the mean of what a beat aggregates, V the variance of it and d the mean number of adapters
between the one that an update was trained on and the one it is added to (weighted by data), the
progress of a beat is largest at the effective step (docs/theory.md)

.. math:: s = \frac{1}{L\,(1 + \theta d + v)}, \qquad v = V / \|u\|^2 .

A server with Adam divides by :math:`\sqrt{\|u\|^2 + V}` itself, so its rate is s times that.

As training goes on :math:`\|u\|` falls and V stays, so v grows and the best step falls:
`useful_rate` follows it, `server_rate_factor` compares schedules at one time.
"""

import numpy as np

from fedpace.core.errors import InputError

__all__ = ["DECAY_POWER", "MOST_NOISE", "SGD_THETA", "THETA", "server_rate_factor", "useful_rate"]

THETA = 1.25
"""Price of a beat of delay, in beats: of time, and of Adam's rate. On quadratics 0.9 to 2, in short
runs of Adam about 1 (`benchmarks/delay_price.py`); the theorem's worst case is 2 sqrt(2)."""
SGD_THETA = 2.5
"""Price of a beat of delay in SGD's rate. It is more than in time: at the smaller step a gradient
that is late pulls further than a present one would, which makes good for half of it."""

DECAY_POWER = 0.75
"""Power of the useful rate that a rate follows. With 1, as one curvature asks for, a step shrinks
too soon for directions that are flatter; 0.75 costs next to nothing early and gains at the end,
with curvatures that are alike or two decades apart (`benchmarks/server_decay.py`)."""
MOST_NOISE = 0.99
"""A larger share of noise counts as this one: what is measured over some forty steps cannot tell it
from 1, at which a step would be of no use."""


def server_rate_factor(
    server_optimizer: str,
    noise: float,
    tuned_noise: float,
    *,
    delay_beats: float = 0.0,
    theta: float | None = None,
    present: float = 1.0,
) -> float:
    """Return what to multiply a tuned server rate by, so that it fits another schedule.

    A rate is tuned on synchronous rounds of noise v0. For beats of noise v and delay d it becomes
    (1 + v0) / (1 + theta d + v) times as large for "sgd" and
    sqrt((1 + v0) (1 + v)) / (1 + theta d + v) for "adam": linear, and the square root of it where
    nothing is late. While part of the data weight cannot have arrived yet, the mean of a beat and
    its variance are smaller by that share; SGD's step then shrinks by itself, Adam's does not and
    is told to.

    Args:
        server_optimizer: "sgd" or "adam".
        noise: v = V / ||u||^2 of a beat, noise_ratio V / V_full, >= 0.
        tuned_noise: v0, that of the rounds on which the rate was tuned.
        delay_beats: d = sum_n a_n (E[b_n] - 1); 0 in a synchronous schedule.
        theta: price of a beat of delay in the rate; by default `THETA` for "adam", `SGD_THETA` for
            "sgd".
        present: data weight of the clients whose update can have arrived by this beat, in [0, 1].

    Returns:
        The factor; 1 for the rounds on which the rate was tuned.

    Raises:
        InputError: an unknown server optimiser, or a value out of range.

    Example:
        >>> server_rate_factor("adam", 8.0, 3.5), server_rate_factor("sgd", 8.0, 3.5)
        (0.7071067811865476, 0.5)
    """
    usual = _theta_of(server_optimizer)
    theta = usual if theta is None else theta
    for name, value in (("noise", noise), ("tuned_noise", tuned_noise),
                        ("delay_beats", delay_beats), ("theta", theta)):  # fmt: skip
        if not 0 <= value < np.inf:
            raise InputError(f"{name} is {value!r}; it must be a number of 0 or more")
    if not 0 <= present <= 1:
        raise InputError(f"present is {present!r}; it is a share of the data, from 0 to 1")
    linear = (1 + tuned_noise) / (1 + theta * delay_beats + noise)
    if server_optimizer == "sgd":
        return float(linear)
    scale = np.sqrt(present * (present + noise) / (1 + tuned_noise))
    return float(linear * scale)


def useful_rate(
    server_optimizer: str, mean_square: float, noise_fraction: float, *, delay_beats: float = 0.0
) -> float:
    """Return the server rate of the most progress, up to a factor that stays through a run.

    1 / (1 + theta d + v) for "sgd", and sqrt(||u||^2 + V) times that for "adam" (derived in
    docs/theory.md, 9.3). Only quotients of two of them say something.

    Args:
        server_optimizer: "sgd" or "adam".
        mean_square: ||u||^2 + V of what a step aggregates, > 0.
        noise_fraction: V / (||u||^2 + V); above `MOST_NOISE` it counts as that.
        delay_beats: d = sum_n a_n (E[b_n] - 1); 0 in a synchronous schedule.

    Raises:
        InputError: an unknown server optimiser.

    Example:
        >>> early, late = useful_rate("sgd", 4.0, 0.5), useful_rate("sgd", 2.5, 0.8)
        >>> round(late / early, 6)
        0.4
    """
    theta = _theta_of(server_optimizer)
    fraction = min(max(noise_fraction, 0.0), MOST_NOISE)
    rate = 1 / (1 + theta * delay_beats + fraction / (1 - fraction))
    return rate * float(np.sqrt(mean_square)) if server_optimizer == "adam" else rate


def _theta_of(server_optimizer: str) -> float:
    """Return the price of a beat of delay in a server's rate; refuse a server that is unknown."""
    prices = {"sgd": SGD_THETA, "adam": THETA}
    if server_optimizer not in prices:
        raise InputError(f"server_optimizer is {server_optimizer!r}; choose 'sgd' or 'adam'")
    return prices[server_optimizer]
