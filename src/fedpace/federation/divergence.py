"""Whether training has diverged: a value that is not finite, and where it was seen first."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fedpace.core.adapter import Array
from fedpace.core.messages import ClientUpdate


def fault_of_updates(updates: Sequence[ClientUpdate]) -> str | None:
    """Name the first client whose loss or update is not finite; None where all are."""
    for update in updates:
        if not math.isfinite(update.train_loss):
            return f"the training loss of client {update.client} is {update.train_loss}"
        if name := _not_finite(update.delta):
            return f"the update of client {update.client} is not finite (tensor {name!r})"
    return None


def fault_of_step(
    of_clients: Mapping[int, tuple[float, float]],
    squared_norms: tuple[float, float],
    adapter: Mapping[str, Array],
    optimizer: Mapping[str, Array],
    memory: Mapping[str, Array],
) -> str | None:
    """Name what the server's step made that is not finite; None where nothing is.

    Args:
        of_clients: squared norms of each client's update; infinite where they overflow.
        squared_norms: of the aggregated one.
        adapter: the new global adapter.
        optimizer: the server optimiser's new state.
        memory: what the aggregation keeps.
    """
    for client, norms in of_clients.items():
        if not np.isfinite(norms).all():
            return f"the norm of the update of client {client} is beyond all numbers"
    if not np.isfinite(squared_norms).all():
        return "the norm of the aggregated update is beyond all numbers"
    for what, arrays in (("global adapter", adapter), ("server optimiser", optimizer),
                         ("server's memory", memory)):  # fmt: skip
        if name := _not_finite(arrays):
            return f"the {what} is not finite (tensor {name!r})"
    return None


def fault_of_evaluation(evaluation: Mapping[str, float]) -> str | None:
    """Name the first metric that is not finite; None where all are."""
    for name, value in evaluation.items():
        if not math.isfinite(value):
            return f"the held-out {name} is {value}"
    return None


def _not_finite(arrays: Mapping[str, Array]) -> str | None:
    return next((name for name, value in arrays.items() if not np.isfinite(value).all()), None)
