"""How the server moves the global adapter along the aggregated update."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fedpace.core.adapter import Adapter, Array
from fedpace.core.errors import InputError

OptimizerState = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class ServerOptimizer:
    """A pair of functions: state in, state out."""

    init: Callable[[Adapter], OptimizerState]
    """Adapter -> state before the first round."""
    step: Callable[[Adapter, Adapter, OptimizerState], tuple[dict[str, Array], OptimizerState]]
    """(adapter, aggregated update, state) -> (new adapter, new state)."""


def server_sgd(learning_rate: float = 1.0) -> ServerOptimizer:
    """X <- X + lambda * update: the paper's server step, lambda = 1 where not given."""

    def step(
        adapter: Adapter, update: Adapter, state: OptimizerState
    ) -> tuple[dict[str, Array], OptimizerState]:
        moved = {name: adapter[name] + np.float32(learning_rate) * update[name] for name in adapter}
        return moved, state

    return ServerOptimizer(init=lambda adapter: {}, step=step)


def server_adam(
    learning_rate: float, *, beta1: float = 0.9, beta2: float = 0.99, epsilon: float = 1e-8
) -> ServerOptimizer:
    """Adam with the aggregated update in place of the negative gradient, bias corrected.

    Source: Reddi et al., "Adaptive Federated Optimization" (ICLR 2021), with Adam's bias
    correction, which that paper leaves out; beta2 = 0.99 is theirs.

    Args:
        learning_rate: size of a step per entry of the adapter.
        beta1: forgetting of the mean of the updates.
        beta2: forgetting of the mean of their squares.
        epsilon: keeps the division finite.
    """

    def init(adapter: Adapter) -> OptimizerState:
        state = {f"mean/{name}": np.zeros_like(value) for name, value in adapter.items()}
        state |= {f"square/{name}": np.zeros_like(value) for name, value in adapter.items()}
        return state | {"steps": np.zeros(1, dtype=np.float32)}

    def step(
        adapter: Adapter, update: Adapter, state: OptimizerState
    ) -> tuple[dict[str, Array], OptimizerState]:
        steps = state["steps"] + np.float32(1)
        count = float(steps[0])
        moved: dict[str, Array] = {}
        after: dict[str, Array] = {"steps": steps}
        for name, value in adapter.items():
            mean = np.float32(beta1) * state[f"mean/{name}"]
            mean += np.float32(1 - beta1) * update[name]
            square = np.float32(beta2) * state[f"square/{name}"]
            square += np.float32(1 - beta2) * update[name] ** 2
            corrected = mean / np.float32(1 - beta1**count)
            scale = np.sqrt(square / np.float32(1 - beta2**count)) + np.float32(epsilon)
            moved[name] = value + np.float32(learning_rate) * corrected / scale
            after[f"mean/{name}"], after[f"square/{name}"] = mean, square
        return moved, after

    return ServerOptimizer(init=init, step=step)


def make_server_optimizer(name: str, learning_rate: float) -> ServerOptimizer:
    """Return the server optimiser of that name, "sgd" or "adam"."""
    if name == "sgd":
        return server_sgd(learning_rate)
    if name == "adam":
        return server_adam(learning_rate)
    raise InputError(f"server_optimizer is {name!r}; choose 'sgd' or 'adam'")
