"""FADAS: a buffered asynchronous server with AMSGrad, and a rate that falls with the delay.

Wang, Wang, Lu and Chen, "FADAS: Towards Federated Adaptive Asynchronous Optimization", ICML 2024,
arXiv 2407.18365: Algorithm 1 with the delay-adaptive rate.
"""

from dataclasses import replace

import numpy as np

from fedpace.core.adapter import Adapter, AdapterLayout, Array, squared_norms, zeros
from fedpace.core.sketch import LEADING
from fedpace.federation.aggregation import Aggregate, Aggregation, Memory, Returned, aggregate

BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-8
DELAY_THRESHOLD = 1
"""tau_c: an older update lowers the rate."""


def fadas(layout: AdapterLayout, buffer: int, learning_rate: float) -> Aggregation:
    r"""Move along :math:`\eta_t\, m_t / (\sqrt{\hat v_t} + \epsilon)`.

    m and v are moving means of the buffer's mean update and of its square, v-hat the largest v so
    far; none is corrected for its start. eta_t is eta where the oldest update in the buffer is at
    most tau_c steps old, else eta over its age.

    Ours: the paper has the smaller of eta and 1 over the age, which would leave the small rates of
    an adapter as they are; and the mean has data weights, the paper's where all hold the same.

    Args:
        layout: of the adapter.
        buffer: K.
        learning_rate: eta.
    """

    def begin(initial: Adapter) -> tuple[Adapter, Memory]:
        blank = zeros(layout.tensors)
        return initial, {f"{part}/{n}": x for part in ("m", "v", "most") for n, x in blank.items()}

    def step(adapter: Adapter, memory: Memory, back: Returned) -> tuple[Aggregate, Memory]:
        result = aggregate(back.updates, back.share(), layout, LEADING)
        if not back.updates:
            return result, memory
        oldest = max(back.staleness())
        rate = learning_rate if oldest <= DELAY_THRESHOLD else learning_rate / oldest
        kept: dict[str, Array] = {}
        moved: dict[str, Array] = {}
        for name, mean in result.update.items():
            m = np.float32(BETA1) * memory[f"m/{name}"] + np.float32(1 - BETA1) * mean
            v = np.float32(BETA2) * memory[f"v/{name}"] + np.float32(1 - BETA2) * mean**2
            most = np.maximum(memory[f"most/{name}"], v)
            kept |= {f"m/{name}": m, f"v/{name}": v, f"most/{name}": most}
            moved[name] = (rate * m / (np.sqrt(most) + EPSILON)).astype(np.float32)
        return replace(result, update=moved, squared_norms=squared_norms(moved, layout)), kept

    return Aggregation(LEADING, step, begin=begin, buffer=buffer)
