"""FedAsync: the server mixes in every model as it arrives, less the older it is.

Xie, Koyejo and Gupta, "Asynchronous Federated Optimization", OPT 2020, arXiv 1903.03934: the
polynomial weight of staleness, with its exponent 1/2.
"""

from dataclasses import replace

import numpy as np

from fedpace.core.adapter import Adapter, AdapterLayout, squared_norms
from fedpace.core.errors import InputError
from fedpace.core.sketch import LEADING
from fedpace.federation.aggregation import Aggregate, Aggregation, Memory, Returned, aggregate

STALENESS_EXPONENT = 0.5


def fedasync(layout: AdapterLayout, mixing: float) -> Aggregation:
    r"""Move to :math:`(1 - \alpha_t) X_t + \alpha_t X_n`, with alpha_t = alpha (1 + age)^(-1/2).

    X_n is what client n arrived at from the adapter of `age` steps ago. The server keeps those
    adapters on which someone still trains. Left out: the proximal term of the local loss, which
    would be another trainer than that of all others.

    Args:
        layout: of the adapter.
        mixing: alpha.

    Raises:
        InputError: alpha is not in (0, 1].
    """
    if not 0 < mixing <= 1:
        raise InputError(
            f"[training] server_learning_rate = {mixing:g} is the mixing weight of 'fedasync'; "
            "it must be in (0, 1], e.g. 0.6"
        )

    def mix(adapter: Adapter, memory: Memory, back: Returned) -> tuple[Aggregate, Memory]:
        known = {**memory, **{f"{back.round_index}/{name}": x for name, x in adapter.items()}}
        weights = [mixing * (1 + age) ** -STALENESS_EXPONENT for age in back.staleness()]
        result = aggregate(back.updates, weights, layout, LEADING)
        moved = result.update
        for update, weight in zip(back.updates, weights, strict=True):
            for name, x in adapter.items():
                moved[name] += np.float32(weight) * (known[f"{update.round_index}/{name}"] - x)
        kept = {key: x for key, x in known.items() if int(key.partition("/")[0]) in back.needed}
        return replace(result, update=moved, squared_norms=squared_norms(moved, layout)), kept

    return Aggregation(LEADING, mix, buffer=1)
