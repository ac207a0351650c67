"""FedBuff: the server averages K updates as they arrive, less the older they are.

Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022, arXiv
2106.06639.
"""

from fedpace.core.adapter import Adapter, AdapterLayout
from fedpace.core.sketch import LEADING
from fedpace.federation.aggregation import Aggregate, Aggregation, Memory, Returned, aggregate


def fedbuff(layout: AdapterLayout, buffer: int) -> Aggregation:
    r"""Move along :math:`\sum_n p_n (1 + \mathrm{age}_n)^{-1/2} \Delta_n` over the buffer.

    Ours: p_n are the data weights over those in the buffer; where all clients hold the same, that
    is the paper's 1/K.
    """

    def average(adapter: Adapter, memory: Memory, back: Returned) -> tuple[Aggregate, Memory]:
        ages = back.staleness()
        weights = [p * (1 + age) ** -0.5 for p, age in zip(back.share(), ages, strict=True)]
        return aggregate(back.updates, weights, layout, LEADING), memory

    return Aggregation(LEADING, average, buffer=buffer)
