"""What the server makes of the updates that came back: the interface of all methods.

A method of aggregation is a record of functions, built by one function for one layout; each stands
in a file of its own in `federation.methods`, named after its paper. What all of them do comes down
to an update, new minus old, along which a server optimiser moves; at the average, X <- X + update,
the result is exactly what the paper has.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedpace.core.adapter import (
    ROLES,
    Adapter,
    AdapterLayout,
    Array,
    Role,
    add_components,
    squared_norms,
    zeros,
)
from fedpace.core.messages import ClientUpdate
from fedpace.core.profile import Floats
from fedpace.core.sketch import Sketch

Memory = Mapping[str, Array]
"""What a method keeps from round to round besides the global adapter."""


@dataclass(frozen=True, slots=True, eq=False)
class Returned:
    """What came back of a round; all sequences in the order of the updates."""

    updates: Sequence[ClientUpdate]
    start: Adapter
    """What the clients started from."""
    data_weight: Sequence[float]
    """a_n."""
    unbiased_weight: Sequence[float]
    """a_n I_n / q_n: its mean over who joins is a_n."""

    round_index: int = 0
    """The round of this step; an update trained on the adapter of its own `round_index`."""
    needed: frozenset[int] = frozenset()
    """Rounds on whose adapters someone who is underway trains."""
    largest_weight: float = math.nan
    """The largest unbiased weight that any client could have had in this round, came it or not."""
    server_seed: int = 0
    """What the server draws from alone; see `Federation.server_seed`."""

    def staleness(self) -> list[int]:
        """Return how many steps the server made since each update's adapter."""
        return [self.round_index - update.round_index for update in self.updates]

    def share(self) -> list[float]:
        """Return a_n over the sum of those of the participants."""
        total = sum(self.data_weight)
        return [weight / total for weight in self.data_weight]


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """The aggregated update and what the noise-scale estimator needs of its parts."""

    update: dict[str, Array]
    """New minus old global adapter, full size; for weighted sums, sum_n w_n Delta_n."""
    weights: Sequence[float]
    """w_n of each update."""
    client_squared_norms: Sequence[tuple[float, float]]
    """Per update: ||Delta_n||^2 of the LoRA part as aggregated, and of the head."""
    squared_norms: tuple[float, float]
    """||update||^2: LoRA part (and what is merged), head."""


def _as_it_is(initial: Adapter) -> tuple[Adapter, Memory]:
    return initial, {}


def _global_adapter(adapter: Adapter, round_index: int, seed: int) -> Adapter:
    return adapter


def _nothing_of_clients(memory: Memory) -> Memory:
    return memory


@dataclass(frozen=True, slots=True, eq=False)
class MethodContext:
    """What a method is built from; a client, which has no part in the sum, builds it as well."""

    layout: AdapterLayout
    """The adapter's."""
    sketch: Sketch
    """The experiment's, which our own methods take."""
    data_weight: Floats
    """a_n, shape (N,); empty on a client, which does not know the others."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The experiment's [training] by key, for methods with keys of their own."""


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One method: what clients start from, train and send, and what the server makes of it."""

    sketch: Sketch
    """How a client trains k of the r rank components."""
    aggregate: Callable[[Adapter, Memory, Returned], tuple[Aggregate, Memory]]
    """(global adapter, memory, what came back) -> the aggregate and the next memory."""
    trained: tuple[Role, ...] = ROLES
    """What clients train and send; the rest stays as it is."""
    unbiased: bool = False
    """Whether the mean of the update over who joins is the full-participation update, for any plan;
    only then do the rounds measure the noise scale, and may the plan be renewed from it."""
    buffer: int | None = None
    """An asynchronous server steps after so many arrivals; None: it moves in rounds or beats."""
    overlaps: bool = False
    """Whether updates that were trained on older adapters may be mixed with the others."""
    begin: Callable[[Adapter], tuple[Adapter, Memory]] = _as_it_is
    """Initial adapter -> global adapter and memory before the first round."""
    received: AdapterLayout | None = None
    """What travels to a client before a round; None for the whole adapter. What does not travel,
    both ends know from the initial draw or from `start`."""
    start: Callable[[Adapter, int, int], Adapter] = _global_adapter
    """(global adapter, round, seed of the run) -> what the clients start from. Called at both ends:
    on a client with the initial adapter and, in its place, what was received."""
    grow: Callable[[Memory], Memory] = _nothing_of_clients
    """The memory of fewer clients -> that of all, the new ones behind the others."""


def aggregate(
    updates: Sequence[ClientUpdate],
    weights: Sequence[float],
    layout: AdapterLayout,
    sketch: Sketch,
) -> Aggregate:
    r"""Return the weighted sum of the updates: :math:`\sum_n w_n \Delta_n`.

    A scaled sketch carries its factor r/k in the forward pass, so its update already has the
    mean of the full one. A residual sketch trains k components of the unscaled adapter, so the
    factor r/k is applied here, to the LoRA part alone; the task head is never sketched.

    Args:
        updates: what came back, in any order; the sum is taken in the order of the clients.
        weights: w_n for each update; a_n I_n / q_n makes the sum unbiased.
        layout: of the full-size adapter; of what was trained, where that is not all of it.
        sketch: how the clients trained k of r components.

    Returns:
        The aggregate; all zero where nothing came back.

    Source: arXiv 2505.23555 (weights); the residual factor is derived in docs/theory.md.
    """
    total = zeros(layout.tensors)
    norms: dict[int, tuple[float, float]] = {}
    # Floating-point sums depend on their order; the order of arrival must not.
    for index in by_client(updates):
        update, weight = updates[index], float(weights[index])
        factor = sketch.server_scale(len(update.components), layout.rank)
        add_components(
            total, update.delta, layout, update.components,
            lora_weight=weight * factor, head_weight=weight,
        )  # fmt: skip
        lora, head = squared_norms(update.delta, layout)
        norms[index] = (lora * factor**2, head)
    return Aggregate(
        update=total,
        weights=list(weights),
        client_squared_norms=[norms[i] for i in range(len(updates))],
        squared_norms=squared_norms(total, layout),
    )


def by_client(updates: Sequence[ClientUpdate]) -> list[int]:
    """Return the positions of the updates in the order of the clients."""
    return sorted(range(len(updates)), key=lambda i: updates[i].client)
