r"""What is known of each client from the rounds it joined: forgotten means, shrunk together.

A client that joined twice tells little by itself, a client that never joined nothing. How much a
client's own mean is to be trusted follows from all of them (empirical Bayes): from how far clients
differ, and how far one client's observations scatter. Logarithms are compared, because the
quantities are positive and scatter in proportion to their size: squared norms, and seconds observed
over seconds predicted. Derived in docs/noise-scale.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpace.core.profile import Floats

__all__ = ["ClientMeans", "fold", "no_observations", "shrunk", "with_unseen"]


@dataclass(frozen=True, slots=True, eq=False)
class ClientMeans:
    """One positive quantity of N clients, as observed so far."""

    observations: NDArray[np.int64]
    """How often each client was seen, shape (N,)."""
    mean: Floats
    """Its forgotten mean, shape (N,); 0 where it was not seen."""
    squared_errors: float
    """Sum over all repeated observations of the squared relative error of predicting the next one
    by the mean of the n earlier ones, divided by 1 + 1/n."""
    errors: int
    """How many these are."""

    def to_json(self) -> dict[str, Any]:
        """Return the means as JSON types; `from_json` gives them back bit for bit."""
        return {
            "observations": self.observations.tolist(),
            "mean": self.mean.tolist(),
            "squared_errors": self.squared_errors,
            "errors": self.errors,
        }

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "ClientMeans":
        """Rebuild the means from what `to_json` returned."""
        return cls(
            np.asarray(table["observations"], dtype=np.int64),
            np.asarray(table["mean"], dtype=np.float64),
            table["squared_errors"],
            table["errors"],
        )


def no_observations(num_clients: int) -> ClientMeans:
    """Return the state before anything was seen of `num_clients` clients."""
    return ClientMeans(np.zeros(num_clients, dtype=np.int64), np.zeros(num_clients), 0.0, 0)


def with_unseen(means: ClientMeans, num_clients: int) -> ClientMeans:
    """Return the means once the population has grown to `num_clients`.

    The known clients keep their positions and all that was seen of them.
    """
    return replace(
        means,
        observations=np.append(
            means.observations, np.zeros(num_clients - len(means.mean), np.int64)
        ),
        mean=np.append(means.mean, np.zeros(num_clients - len(means.mean))),
    )


def fold(
    means: ClientMeans, client: NDArray[np.int64], value: Floats, forget: float
) -> ClientMeans:
    """Take one observation of each of some clients into account.

    Args:
        means: what was known.
        client: distinct positions, shape (M,).
        value: what was observed of them, above 0, shape (M,).
        forget: factor in (0, 1] by which a client's observation counts less than its next one.

    Returns:
        What is known now.
    """
    seen, before = means.observations[client], means.mean[client]
    total, effective = _memory(seen, forget)
    again = seen > 0
    observations, mean = means.observations.copy(), means.mean.copy()
    observations[client] += 1
    mean[client] += (value - before) / (forget * total + 1.0)
    error = ((value - before) / mean[client])[again] ** 2 / (1 + 1 / effective[again])
    squared_errors = means.squared_errors + float(error.sum())
    return ClientMeans(observations, mean, squared_errors, means.errors + int(again.sum()))


def shrunk(means: ClientMeans, forget: float) -> Floats:
    """Return the best guess of every client's mean, shape (N,).

    A one-way model of the logarithms: the variance within clients from the one-step prediction
    errors, the variance between them by the method of moments (DerSimonian and Laird 1986), then
    the posterior median. A client not seen gets the population's; while no client was seen
    twice, within and between cannot be told apart, and all get 1.

    Args:
        means: what was observed.
        forget: as for `fold`.

    Example:
        >>> means = no_observations(3)
        >>> for value in (1.0, 1.2, 0.9, 1.1):
        ...     means = fold(means, np.array([0, 1]), np.array([value, 9 * value]), 1.0)
        >>> shrunk(means, 1.0).round(1).tolist()
        [1.1, 9.5, 3.2]
    """
    seen = means.observations > 0
    if means.errors == 0:
        return np.ones(len(seen))
    effective = _memory(means.observations[seen], forget)[1]
    # Variance of the logarithm of a mean, from the relative variance, as for log-normal scatter.
    noise = np.maximum(np.log1p(means.squared_errors / means.errors / effective), 1e-30)
    value = np.log(means.mean[seen]) + noise / 2  # which is too low by that much
    precision = 1 / noise
    scatter = precision @ (value - precision @ value / precision.sum()) ** 2 - (len(value) - 1)
    freedom = precision.sum() - precision @ precision / precision.sum()
    between = max(0.0, float(scatter / freedom)) if freedom > 0 else 0.0
    weight = 1 / (between + noise)
    centre = float(weight @ value / weight.sum())
    logarithm = np.full(len(seen), centre)
    logarithm[seen] += between * weight * (value - centre)
    return np.asarray(np.exp(logarithm))


def _memory(count: NDArray[np.int64], forget: float) -> tuple[Floats, Floats]:
    """Sum of the weights of `count` forgotten observations, and Kish's effective number."""
    if forget == 1:
        return count.astype(np.float64), count.astype(np.float64)
    kept: Floats = forget ** count.astype(np.float64)
    total, squared = (1 - kept) / (1 - forget), (1 - kept**2) / (1 - forget**2)
    return total, total**2 / np.maximum(squared, 1e-300)
