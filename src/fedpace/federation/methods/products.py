"""B A of clients and modules as matrices, whatever the shapes of the tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedpace.core.adapter import Adapter, AdapterLayout, Array, TensorSpec, take_components
from fedpace.federation.aggregation import Returned, by_client


@dataclass(frozen=True, slots=True, eq=False)
class LocalAdapters:
    """The adapters of the participants after local training, in the order of the clients."""

    position: Sequence[int]
    """Place of each in the updates that came back."""
    adapter: Sequence[Adapter]
    """k_n rows of every A, k_n columns of every B, the head whole."""

    def stacked(self, a: TensorSpec, b: TensorSpec, weight: Sequence[float]) -> tuple[Array, Array]:
        """Return [w_1 B_1, w_2 B_2, ...] and [A_1; A_2; ...]: their product is sum w_n B_n A_n.

        Args:
            a: A of a module.
            b: B of the module.
            weight: w_n of the updates, in the order in which they came back.

        Returns:
            Shapes (d_out, K) and (K, d_in), K = sum k_n; no columns where nobody took part.
        """
        columns = [
            np.float32(weight[i]) * as_matrix(x[b.name], b)
            for i, x in zip(self.position, self.adapter, strict=True)
        ]
        rows = [as_matrix(x[a.name], a) for x in self.adapter]
        return np.concatenate(columns, axis=1), np.concatenate(rows)


def local_adapters(back: Returned, layout: AdapterLayout) -> LocalAdapters:
    """Return what the participants ended with: what they started from plus their updates."""
    order = by_client(back.updates)
    adapters = []
    for update in (back.updates[i] for i in order):
        begun = take_components(back.start, layout, update.components)
        adapters.append({name: begun[name] + update.delta[name] for name in begun})
    return LocalAdapters(order, adapters)


def as_matrix(value: Array, spec: TensorSpec) -> Array:
    """Return an A as (k, d_in), a B as (d_out, k); those of convolutions have more axes."""
    shape = value.shape
    matrix: Array = value.reshape(shape[0], -1) if spec.role == "A" else value.reshape(shape[:2])
    return matrix


def squared_product_norm(adapter: Adapter, layout: AdapterLayout) -> float:
    """Return the sum over modules of ||B A||_F^2 = <B' B, A A'>, in double precision."""
    total = 0.0
    for a, b in layout.modules:
        rows = as_matrix(adapter[a.name], a).astype(np.float64)
        columns = as_matrix(adapter[b.name], b).astype(np.float64)
        total += float(np.sum((columns.T @ columns) * (rows @ rows.T)))
    return total
