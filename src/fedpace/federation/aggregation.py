"""What the server makes of the updates that came back."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedpace.core.adapter import AdapterLayout, Array, add_components, squared_norms, zeros
from fedpace.core.messages import ClientUpdate
from fedpace.core.profile import Sketch


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """The aggregated update and what the noise-scale estimator needs of its parts."""

    update: dict[str, Array]
    """sum_n w_n Delta_n, full size."""
    client_squared_norms: Sequence[tuple[float, float]]
    """Per update: ||Delta_n||^2 of the LoRA part as aggregated, and of the head."""
    squared_norms: tuple[float, float]
    """||sum_n w_n Delta_n||^2: LoRA part, head."""


def aggregate(
    updates: Sequence[ClientUpdate],
    weights: Sequence[float],
    layout: AdapterLayout,
    sketch: Sketch,
) -> Aggregate:
    r"""Sum the updates without bias: :math:`\sum_n w_n \Delta_n`, with :math:`w_n = a_n I_n / q_n`.

    A scaled sketch carries its factor r/k in the forward pass, so its update already has the
    mean of the full one. A residual sketch trains k components of the unscaled adapter, so the
    factor r/k is applied here, to the LoRA part alone; the task head is never sketched.

    Args:
        updates: what came back, in any order; the sum is taken in the order of the clients.
        weights: w_n for each update.
        layout: of the full-size adapter.
        sketch: "scaled" or "residual".

    Returns:
        The aggregate; all zero where nothing came back.

    Source: arXiv 2505.23555 (weights); the residual factor is derived in docs/theory.md.
    """
    total = zeros(layout.tensors)
    norms: dict[int, tuple[float, float]] = {}
    # Floating-point sums depend on their order; the order of arrival must not.
    for index in sorted(range(len(updates)), key=lambda i: updates[i].client):
        update, weight = updates[index], float(weights[index])
        factor = layout.rank / len(update.components) if sketch == "residual" else 1.0
        add_components(
            total, update.delta, layout, update.components,
            lora_weight=weight * factor, head_weight=weight,
        )  # fmt: skip
        lora, head = squared_norms(update.delta, layout)
        norms[index] = (lora * factor**2, head)
    return Aggregate(
        update=total,
        client_squared_norms=[norms[i] for i in range(len(updates))],
        squared_norms=squared_norms(total, layout),
    )
