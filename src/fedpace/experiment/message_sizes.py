"""How long the messages of a method are on the network that an experiment describes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedpace.core.adapter import AdapterLayout
from fedpace.core.payload import with_payload
from fedpace.core.profile import Floats
from fedpace.core.sketch import RESIDUAL
from fedpace.engines.exchange import Exchange, payload
from fedpace.experiment.config import Experiment
from fedpace.experiment.network import build_network
from fedpace.federation.aggregation import MethodContext
from fedpace.federation.methods.sketched import sketched
from fedpace.wireless.network import Network

__all__ = ["first_network", "sending"]


def first_network(
    experiment: Experiment, layout: AdapterLayout, examples: Sequence[float] | Floats
) -> Network:
    """Draw the network that [network] describes, for clients with so many examples.

    Its message sizes are those of the whole adapter as float32, for which the links are drawn:
    methods meet the same devices and links, and only their messages differ.
    """
    plain = MethodContext(layout, RESIDUAL, np.empty(0))  # of sizes no data is asked
    sizes = payload(Exchange(layout, {}, sketched(plain)))
    return build_network(
        experiment, np.array(examples, dtype=np.float64),
        fixed_bits=sizes.fixed_bits, bits_per_rank=sizes.bits_per_rank,
    )  # fmt: skip


def sending(
    network: Network, exchange: Exchange, request_bits: tuple[float, float] = (0.0, 0.0)
) -> Network:
    """Return the network with a method's messages on it.

    Args:
        network: devices and links.
        exchange: of the method.
        request_bits: about each message beside the message itself, up and down.
    """
    sizes = payload(exchange).beside(*request_bits)
    return replace(network, system=with_payload(network.system, sizes, exchange.aggregation.sketch))
