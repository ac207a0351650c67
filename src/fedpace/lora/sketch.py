"""What a sketch (`fedpace.core.sketch`) does to the forward pass of PEFT's layers."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from fedpace.core.adapter import Components
from fedpace.core.sketch import Sketch
from fedpace.lora.adapter import ADAPTER_NAME, AdaptedModel


def component_scale(sketch: Sketch, adapted: AdaptedModel, sketch_rank: int) -> float:
    """Return each component's factor in the forward pass: the model's, times r/k where scaled."""
    return adapted.scale * sketch.client_scale(sketch_rank, adapted.layout.rank)


@contextmanager
def lora_scaling(adapted: AdaptedModel, scale: float) -> Iterator[None]:
    """Let PEFT's layers multiply by `scale` in place of the model's own factor."""
    layers = adapted.lora_modules.values()
    before = [layer.scaling[ADAPTER_NAME] for layer in layers]
    try:
        for layer in layers:
            layer.scaling[ADAPTER_NAME] = scale
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.scaling[ADAPTER_NAME] = value


def chosen_first(components: Components, lora_rank: int) -> Components:
    """All r components, those of the index set first; each part in ascending order."""
    rest = np.setdiff1d(np.arange(lora_rank), components)
    return np.concatenate([components, rest])
