"""FedIT: A and B are averaged, each for itself.

Zhang et al., "Towards Building the Federated GPT: Federated Instruction Tuning", ICASSP 2024, arXiv
2305.05644: clients fine-tune LoRA adapters of one common rank, the server takes FedAvg of them.
"""

from fedpace.core.adapter import Adapter
from fedpace.core.sketch import LEADING
from fedpace.federation.aggregation import (
    Aggregate,
    Aggregation,
    Memory,
    MethodContext,
    Returned,
    aggregate,
)


def fedit(context: MethodContext) -> Aggregation:
    r"""Move to :math:`\sum_n p_n X_n` with p_n the data weights over those of the participants.

    Ours: the common rank k may be below that of the global adapter; then its first k components are
    trained, with the factor alpha/r. The others stay at their initial draw, where B is zero.
    """
    layout = context.layout

    def average(adapter: Adapter, memory: Memory, back: Returned) -> tuple[Aggregate, Memory]:
        return aggregate(back.updates, back.share(), layout, LEADING), memory

    return Aggregation(LEADING, average)
