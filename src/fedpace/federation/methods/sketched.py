"""Unbiased aggregation of sketched updates: the method of FedPace.

arXiv 2505.23555, "Adaptive Federated LoRA in Heterogeneous Wireless Networks with Independent
Sampling"; with uniform sampling and ranks by device it is FSLoRA (arXiv 2501.19389).
"""

from collections.abc import Mapping

from fedpace.core.adapter import Adapter, AdapterLayout
from fedpace.core.messages import ClientUpdate
from fedpace.core.profile import Sketch
from fedpace.federation.aggregation import Aggregate, Aggregation, Memory, Returned, aggregate


def sketched(layout: AdapterLayout, sketch: Sketch) -> Aggregation:
    r"""Move along :math:`\sum_n a_n (I_n / q_n) \Delta_n`.

    Args:
        layout: of the adapter.
        sketch: "scaled", the papers', or "residual", ours (docs/theory.md).
    """

    def sum_up(adapter: Adapter, memory: Memory, back: Returned) -> tuple[Aggregate, Memory]:
        return aggregate(back.updates, back.unbiased_weight, layout, sketch), memory

    return Aggregation(sketch, sum_up, unbiased=True)


def own_scale(layout: AdapterLayout, update: ClientUpdate, sketch: Sketch) -> Mapping[str, float]:
    """Return the factor r/k that a scaled update has from its forward pass, by tensor; else 1."""
    ratio = layout.rank / len(update.components) if sketch == "scaled" else 1.0
    return {t.name: 1.0 if t.role == "head" else ratio for t in layout.tensors}
