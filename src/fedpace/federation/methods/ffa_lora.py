"""FFA-LoRA: A stays at its initial draw; B alone is trained, sent and averaged.

Sun et al., "Improving LoRA in Privacy-preserving Federated Learning", ICLR 2024, arXiv 2403.12313:
the product is then linear in what is averaged, and the message is half as long.
"""

from dataclasses import replace

import numpy as np

from fedpace.core.adapter import Adapter, Role, zeros
from fedpace.core.errors import InputError
from fedpace.core.sketch import LEADING
from fedpace.federation.aggregation import (
    Aggregate,
    Aggregation,
    Memory,
    MethodContext,
    Returned,
    aggregate,
)

TRAINED: tuple[Role, ...] = ("B", "head")


def ffa_lora(context: MethodContext) -> Aggregation:
    """Average B and the task head with data weights.

    Ours: the common rank may be below that of the global adapter, as for FedIT; and the head is
    trained (the paper freezes it for its GLUE tasks), because ours starts at random.
    """
    layout = context.layout
    sent = layout.only(TRAINED)

    def begin(initial: Adapter) -> tuple[Adapter, Memory]:
        for a, _ in layout.modules:
            if not np.any(initial[a.name]):
                raise InputError(
                    f"ffa-lora freezes A at its initial draw, but {a.name} starts at zero, so that "
                    "B could never matter; leave the embeddings out of [lora] target_modules"
                )
        return initial, {}

    def average(adapter: Adapter, memory: Memory, back: Returned) -> tuple[Aggregate, Memory]:
        result = aggregate(back.updates, back.share(), sent, LEADING)
        return replace(result, update=zeros(layout.tensors) | result.update), memory

    return Aggregation(LEADING, average, trained=TRAINED, received=sent, begin=begin)
