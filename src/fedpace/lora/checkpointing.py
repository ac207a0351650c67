"""Gradient checkpointing: a layer keeps its input alone, and computes the rest again backwards.

transformers does so in training mode alone, where the base's own dropout would be on; so the layers
that it marks for it are wrapped here. Whatever a layer reads besides its input, the tensors of
clients and their dropout masks, must stay in place until the backward pass is over.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from fedpace.core.errors import InputError
from fedpace.lora.adapter import AdaptedModel


def layers_to_recompute(adapted: AdaptedModel) -> list[nn.Module]:
    """Return the layers that transformers marks for gradient checkpointing, without those in them.

    Raises:
        InputError: there are none.
    """
    found: dict[str, nn.Module] = {}
    for name, module in adapted.model.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, GradientCheckpointingLayer) and not inner:
            found[name] = module
    if not found:
        raise InputError(
            f'[training] gradient_checkpointing = true: model "{adapted.base.name}" '
            f"({adapted.base.model.config.model_type}) has no layers that transformers marks for "
            "it; leave it out"
        )
    return list(found.values())


@contextmanager
def checkpointing(adapted: AdaptedModel, wanted: bool) -> Iterator[None]:
    """Let the layers compute again in the backward pass what they do not keep, where wanted.

    Raises:
        InputError: as `layers_to_recompute`.
    """
    layers = layers_to_recompute(adapted) if wanted else []
    before = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:
            # The base's dropout is off and ours draws by itself: torch's generators play no part.
            layer.forward = partial(
                checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
            )
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            del layer.forward  # the class's shows again
            if forward is not None:
                layer.forward = forward
