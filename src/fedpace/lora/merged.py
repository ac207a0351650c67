r"""Updates that were merged into the base weights (FLoRA, arXiv 2409.05976).

The adapter carries them as dense matrices, the sum of the merged B A by module (`MERGED` in
fedpace.core.adapter). The base model itself never changes: training and evaluation add
:math:`(\alpha/r) \sum B A` to its weights for a call and put the weights back, to the bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from fedpace.core.adapter import MERGED, Adapter, Array
from fedpace.core.errors import InputError
from fedpace.lora.adapter import ADAPTER_NAME, AdaptedModel, factor_names


@contextmanager
def merged_into_base(adapted: AdaptedModel, *adapters: Adapter) -> Iterator[None]:
    """Let the base weights include what the adapters have merged; they all must have the same.

    Raises:
        InputError: the adapters differ in it, or a weight cannot take it.
    """
    before: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for name, layer in adapted.lora_modules.items():
            key = MERGED + factor_names(name, layer)[0]
            found = {id(x.get(key)): x.get(key) for x in adapters}
            if len(found) != 1:
                raise InputError(
                    f"the tasks of a call have merged different updates into {name}; "
                    "train those of one round at a time"
                )
            (product,) = found.values()
            if product is not None:
                weight = layer.get_base_layer().weight
                _refuse_unless_own(adapted, name, weight)
                before.append((weight, weight.data))
                weight.data = _with(weight.data, product, layer, adapted)
        yield
    finally:
        for weight, data in before:
            weight.data = data


def _with(weight: Tensor, product: Array, layer: LoraLayer, adapted: AdaptedModel) -> Tensor:
    """The weight with the scaled B A added, which lies transposed in embeddings and Conv1D."""
    added = torch.from_numpy(product).to(weight.device)
    if ADAPTER_NAME in layer.lora_embedding_A or getattr(layer, "fan_in_fan_out", False):
        added = added.T
    return weight + (adapted.scale * added).reshape(weight.shape).to(weight.dtype)


def _refuse_unless_own(adapted: AdaptedModel, name: str, weight: Tensor) -> None:
    if not weight.is_floating_point():
        raise InputError(
            f"flora merges into the base weights, but that of {name} is quantised; "
            "set [model] quantization = 'none', or choose another method"
        )
    holders = [n for n, m in adapted.model.named_modules() if getattr(m, "weight", None) is weight]
    # PEFT's wrapper shows the weight of the layer in it as its own.
    others = [n for n in holders if n not in (name, f"{name}.base_layer")]
    if others:
        raise InputError(
            f"flora merges into the base weights, but {name} shares its weight with {others[0]}; "
            "leave it out of [lora] target_modules"
        )
