r"""What a round costs each client of its privacy, and what a whole run does.

A round is a Gaussian mechanism on a Poisson sample in which client n has a rate and a noise of its
own: it joins with probability q_n, and the noise is z M, M the largest weight of any client, so
that against its own weight w_n the multiplier is z M / w_n. The Renyi divergence of such a round
(Mironov, Talwar and Zhang, arXiv 1908.10530) is computed by Google's dp-accounting; divergences of
rounds, with whatever rates and noises, add up (Mironov, arXiv 1702.07476), so that one vector a
client is all that a run has to remember. docs/theory.md, section 10, has the derivations.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.optimize import brentq

from fedpace.core.errors import InputError, MissingExtraError
from fedpace.core.profile import Floats

__all__ = ["ORDERS", "PrivacyLimit", "epsilon", "require_accountant", "round_loss"]

ORDERS = (*range(2, 17), 18, 20, 22, 24, 28, 32, 40, 48, 64, 96, 128)
"""Orders of the Renyi divergences that are kept; the best of them gives epsilon. Whole ones: there
the divergence is a finite sum, and exact."""
_LEAST_RATE = 1e-9
"""Rate below which none is looked for."""
_LOG_RATE_ACCURACY = 1e-6
"""Error of the logarithm of the largest rate; what is returned is below it by as much."""


def require_accountant() -> None:
    """Raise `MissingExtraError` where privacy cannot be accounted for."""
    _library()


def _library() -> tuple[Any, Any]:
    try:
        import dp_accounting
        from dp_accounting import rdp
    except ImportError:
        raise MissingExtraError("dp-accounting", "privacy") from None
    return dp_accounting, rdp


@lru_cache(maxsize=1 << 16)
def _one_round(sampling_probability: float, noise_multiplier: float) -> tuple[float, ...]:
    if np.isinf(noise_multiplier):
        return (0.0,) * len(ORDERS)
    if noise_multiplier == 0:
        return (np.inf,) * len(ORDERS)
    events, rdp = _library()
    accountant = rdp.RdpAccountant(ORDERS)
    noise = events.GaussianDpEvent(noise_multiplier)
    accountant.compose(events.PoissonSampledDpEvent(sampling_probability, noise))
    return tuple(accountant.rdp.tolist())


def round_loss(sampling_probability: Floats, weight: Floats, noise_multiplier: float) -> Floats:
    """Return the Renyi divergences of one round, shape (N, len(ORDERS)).

    Args:
        sampling_probability: q_n, shape (N,).
        weight: w_n, what an update of each would have been multiplied by, shape (N,); 0 for one
            who could not be asked.
        noise_multiplier: z, standard deviation of the noise over max_n w_n times the clip norm.

    Returns:
        At each of `ORDERS`; infinite without noise, 0 where the weight is.
    """
    largest = float(np.max(weight, initial=0.0))
    with np.errstate(divide="ignore"):
        own = np.where(weight > 0, noise_multiplier * largest / weight, np.inf)
    pairs = zip(sampling_probability.tolist(), own.tolist(), strict=True)
    return np.array([_one_round(q, z) for q, z in pairs]).reshape(-1, len(ORDERS))


def epsilon(loss: Floats, delta: float) -> Floats:
    """Return the epsilon of each client at this delta, shape (N,).

    Args:
        loss: sums of `round_loss` over the rounds so far, shape (N, len(ORDERS)).
        delta: chance that epsilon does not hold.
    """
    return np.array([_epsilon(tuple(row), delta) for row in loss.tolist()]).reshape(-1)


@lru_cache(maxsize=1 << 16)
def _epsilon(loss: tuple[float, ...], delta: float) -> float:
    if not any(loss):
        return 0.0
    if all(np.isinf(loss)):
        return np.inf
    return float(_library()[1].compute_epsilon(ORDERS, loss, delta)[0])


@dataclass(frozen=True, slots=True)
class PrivacyLimit:
    """What a plan may cost the privacy of any client, over a whole run."""

    noise_multiplier: float
    """z."""
    delta: float
    max_epsilon: float
    rounds: int
    """Rounds of the run, all of them."""

    def __post_init__(self) -> None:
        if not self.noise_multiplier >= 0 or self.rounds < 1:
            raise InputError(
                f"noise_multiplier is {self.noise_multiplier!r} and rounds is {self.rounds!r}; "
                "give 0 or more, and 1 or more"
            )
        if not 0 < self.delta < 1 or not self.max_epsilon > 0:
            raise InputError(
                f"delta is {self.delta!r} and max_epsilon is {self.max_epsilon!r}; give a "
                "probability in (0, 1), and an epsilon above 0"
            )

    def largest_rate(self) -> float:
        """Return the largest q at which noise z for all rounds keeps the limit; 0 where none does.

        It is enough that the largest weight is at least max_n w_n q_n over this rate: then no
        client passes the limit, whatever its own q_n (docs/theory.md, section 10).
        """
        return _largest_rate(self.noise_multiplier, self.delta, self.max_epsilon, self.rounds)


@lru_cache(maxsize=256)
def _largest_rate(noise_multiplier: float, delta: float, max_epsilon: float, rounds: int) -> float:
    def excess(log_rate: float) -> float:
        loss = rounds * np.array([_one_round(float(np.exp(log_rate)), noise_multiplier)])
        spent = float(np.clip(epsilon(loss, delta)[0], 1e-300, 1e300))
        return float(np.log(spent / max_epsilon))

    least = float(np.log(_LEAST_RATE))
    if noise_multiplier == 0 or excess(least) > 0:
        return 0.0
    if excess(0.0) <= 0:
        return 1.0
    root = brentq(excess, least, 0.0, xtol=_LOG_RATE_ACCURACY / 4)
    return float(np.exp(root - _LOG_RATE_ACCURACY))
