"""The adapter as named arrays, and which of their entries belong to which rank component."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Adapter = Mapping[str, Array]
"""The global adapter X = [B; A] with the task head: name -> array."""
Components = NDArray[np.int64]
"""A client's index set: k distinct rank components out of r, sorted, shape (k,)."""
Role = Literal["A", "B", "head", "merged"]
ROLES: tuple[Role, ...] = ("A", "B", "head")
"""What a model's layout has, and a client may train."""
MERGED = "merged/"
"""An adapter's entry of this prefix and the name of an A is the sum of the B A already merged into
that module's base weight, shape (d_out, d_in), in units of B A: without the factor alpha/r."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of the adapter.

    `role` says what its entries are: "A" has the r rank components along axis 0 (its rows),
    "B" along axis 1 (its columns), "head" has none and always travels whole, and so does "merged",
    which is no part of a model's layout (see `MERGED`).
    """

    name: str
    shape: tuple[int, ...]
    role: Role

    @property
    def rank_axis(self) -> int | None:
        """Axis of the rank components, None for what has none."""
        return {"A": 0, "B": 1}.get(self.role)

    def of_rank(self, sketch_rank: int) -> tuple[int, ...]:
        """Return the shape with that many rank components."""
        return tuple(
            sketch_rank if axis == self.rank_axis else size for axis, size in enumerate(self.shape)
        )


@dataclass(frozen=True, slots=True)
class AdapterLayout:
    """Every tensor of the adapter, in the order in which they are encoded."""

    rank: int
    """r, common to all modules."""
    tensors: tuple[TensorSpec, ...]

    @property
    def modules(self) -> tuple[tuple[TensorSpec, TensorSpec], ...]:
        """A and B of each adapted module, in order."""
        a, b = ([t for t in self.tensors if t.role == role] for role in ("A", "B"))
        return tuple(zip(a, b, strict=True))

    @property
    def merged(self) -> tuple[TensorSpec, ...]:
        """What is merged into each module's base weight: a dense matrix (see `MERGED`)."""
        return tuple(
            TensorSpec(MERGED + a.name, (b.shape[0], int(np.prod(a.shape[1:]))), "merged")
            for a, b in self.modules
        )

    def only(self, roles: Sequence[Role]) -> "AdapterLayout":
        """Return the layout of the tensors with these roles."""
        return AdapterLayout(self.rank, tuple(t for t in self.tensors if t.role in roles))

    def shapes(self, sketch_rank: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor with that many rank components."""
        return {t.name: t.of_rank(sketch_rank) for t in self.tensors}

    @property
    def values_per_rank(self) -> int:
        """Numbers that one rank component has in all A and B together."""
        sizes = [int(np.prod(t.shape)) for t in self.tensors if t.rank_axis is not None]
        return sum(sizes) // self.rank

    @property
    def head_values(self) -> int:
        """Numbers in the task head."""
        return sum(int(np.prod(t.shape)) for t in self.tensors if t.rank_axis is None)


def take_components(adapter: Adapter, layout: AdapterLayout, components: Components) -> Adapter:
    """Return what a client of that index set holds: k rows of A, k columns of B, the head whole."""
    return {
        t.name: adapter[t.name]
        if t.rank_axis is None
        else np.take(adapter[t.name], components, axis=t.rank_axis)
        for t in layout.tensors
    }


def add_components(
    total: dict[str, Array],
    delta: Adapter,
    layout: AdapterLayout,
    components: Components,
    *,
    lora_weight: float,
    head_weight: float,
) -> None:
    """Add a client's sketched tensors to full-size ones, in place.

    Args:
        total: full-size arrays by name; changed.
        delta: the client's arrays, as `take_components` shapes them.
        layout: of the full-size adapter.
        components: the client's index set, shape (k,).
        lora_weight: factor of the A and B parts.
        head_weight: factor of the task head.
    """
    for t in layout.tensors:
        if t.rank_axis is None:
            total[t.name] += np.float32(head_weight) * delta[t.name]
        elif t.rank_axis == 0:
            total[t.name][components] += np.float32(lora_weight) * delta[t.name]
        else:
            total[t.name][:, components] += np.float32(lora_weight) * delta[t.name]


def squared_norms(delta: Adapter, layout: AdapterLayout) -> tuple[float, float]:
    """Return the squared norms of the LoRA part and of the head, in double precision."""
    parts: dict[bool, float] = {True: 0.0, False: 0.0}
    for t in layout.tensors:
        flat = delta[t.name].astype(np.float64).ravel()
        parts[t.rank_axis is None] += float(flat @ flat)
    return parts[False], parts[True]


def put_components(
    values: Adapter, layout: AdapterLayout, components: Components
) -> dict[str, Array]:
    """Return full-size tensors: what `take_components` took at its place, zero elsewhere."""
    whole = zeros(layout.tensors)
    for t in layout.tensors:
        if t.rank_axis is None:
            whole[t.name] = np.asarray(values[t.name])
        elif t.rank_axis == 0:
            whole[t.name][components] = values[t.name]
        else:
            whole[t.name][:, components] = values[t.name]
    return whole


def zeros(specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Return an all-zero array for each tensor."""
    return {t.name: np.zeros(t.shape, dtype=np.float32) for t in specs}
