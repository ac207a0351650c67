"""HetLoRA: ranks differ; smaller adapters are padded with zeros, weights follow their size.

Cho et al., "Heterogeneous LoRA for Federated Fine-tuning of On-Device Foundation Models", EMNLP
2024, arXiv 2401.06432.
"""

import math
from dataclasses import replace

from fedpace.core.adapter import Adapter, add_components, squared_norms, zeros
from fedpace.core.sketch import LEADING
from fedpace.federation.aggregation import (
    Aggregate,
    Aggregation,
    Memory,
    MethodContext,
    Returned,
    aggregate,
)
from fedpace.federation.methods.products import local_adapters, squared_product_norm


def hetlora(context: MethodContext) -> Aggregation:
    r"""Move to :math:`\sum_n p_n\, \mathrm{pad}(X_n)`, p_n in proportion to ||B_n A_n||_F.

    A client gets the first k_n components and sends them back; what it does not hold counts as
    zero in the average ("zero-padding"), and clients with larger products count more ("sparsity
    weights"; the paper has no data weights).

    Ours: the norm is that of all modules together; where all products are zero, the weights are
    equal; the factor of the forward pass is alpha/r for every k_n. Left out: rank self-pruning,
    which lets clients lower their rank by a penalty during training.
    """
    layout = context.layout
    head = layout.only(("head",))

    def average(adapter: Adapter, memory: Memory, back: Returned) -> tuple[Aggregate, Memory]:
        if not back.updates:
            return aggregate([], [], layout, LEADING), memory
        local = local_adapters(back, layout)
        size = [math.sqrt(squared_product_norm(x, layout)) for x in local.adapter]
        if not sum(size):
            size = [1.0] * len(size)
        padded = zeros(layout.tensors)
        weights = [0.0] * len(size)
        for i, x, norm in zip(local.position, local.adapter, size, strict=True):
            weights[i] = norm / sum(size)
            add_components(
                padded, x, layout, back.updates[i].components,
                lora_weight=weights[i], head_weight=0.0,
            )  # fmt: skip
        update = {name: padded[name] - adapter[name] for name in padded}
        update |= aggregate(back.updates, back.share(), head, LEADING).update
        result = aggregate(back.updates, weights, layout, LEADING)
        return replace(result, update=update, squared_norms=squared_norms(update, layout)), memory

    return Aggregation(LEADING, average)
