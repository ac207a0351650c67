"""Unbiased aggregation of sketched updates: the method of FedPace.

arXiv 2505.23555, "Adaptive Federated LoRA in Heterogeneous Wireless Networks with Independent
Sampling"; with uniform sampling and ranks by device it is FSLoRA (arXiv 2501.19389).
"""

from fedpace.core.adapter import Adapter
from fedpace.federation.aggregation import (
    Aggregate,
    Aggregation,
    Memory,
    MethodContext,
    Returned,
    aggregate,
)


def sketched(context: MethodContext) -> Aggregation:
    r"""Move along :math:`\sum_n a_n (I_n / q_n) \Delta_n`.

    The sketch is that of the context: SCALED, the papers', or RESIDUAL, ours (docs/theory.md).
    """
    layout, sketch = context.layout, context.sketch

    def sum_up(adapter: Adapter, memory: Memory, back: Returned) -> tuple[Aggregate, Memory]:
        return aggregate(back.updates, back.unbiased_weight, layout, sketch), memory

    return Aggregation(sketch, sum_up, unbiased=True, overlaps=True)
