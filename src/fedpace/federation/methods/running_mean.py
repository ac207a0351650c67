"""Server memory of one adapter: the running mean of the updates as a control variate for ours.

The difference estimator of survey sampling (Särndal, Swensson and Wretman, "Model Assisted Survey
Sampling", 1992, 6.3) with what earlier rounds predict of an update; ours in federated learning.
"""

from dataclasses import replace

import numpy as np

from fedpace.core.adapter import Adapter, AdapterLayout, squared_norms, take_components, zeros
from fedpace.core.profile import Sketch
from fedpace.federation.aggregation import Aggregate, Aggregation, Memory, Returned, aggregate
from fedpace.federation.methods.sketched import own_scale


def running_mean(layout: AdapterLayout, sketch: Sketch, forget: float) -> Aggregation:
    r"""Move along :math:`\Delta = m + \sum_n \frac{a_n I_n}{q_n} (\Delta_n - S_n m)`.

    m is the mean of the rounds before, m <- f m + (1 - f) Delta, zero at first; S_n picks the
    components trained now, times r/k. Independent sampling makes the sum of the weights a_n I_n/q_n
    scatter around 1; what all updates have in common, m, is no longer multiplied by that scatter.
    The mean over who joins and over the index sets is that without memory, whatever m is, since the
    a_n add up to 1. An empty round moves along m.

    Args:
        layout: of the adapter.
        sketch: "scaled" or "residual".
        forget: f, in [0, 1); 0 remembers the last round alone.
    """

    def begin(initial: Adapter) -> tuple[Adapter, Memory]:
        return initial, zeros(layout.tensors)

    def correct(adapter: Adapter, memory: Memory, back: Returned) -> tuple[Aggregate, Memory]:
        corrected = []
        for update in back.updates:
            expected = take_components(dict(memory), layout, update.components)
            scale = own_scale(layout, update, sketch)
            delta = {name: value - np.float32(scale[name]) * expected[name]
                     for name, value in update.delta.items()}  # fmt: skip
            corrected.append(replace(update, delta=delta))
        result = aggregate(corrected, back.unbiased_weight, layout, sketch)
        moved = {name: value + memory[name] for name, value in result.update.items()}
        mean = {
            name: np.float32(forget) * memory[name] + np.float32(1 - forget) * moved[name]
            for name in moved
        }
        return replace(result, update=moved, squared_norms=squared_norms(moved, layout)), mean

    return Aggregation(sketch, correct, unbiased=True, begin=begin)
