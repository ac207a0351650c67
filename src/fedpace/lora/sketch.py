r"""The ways of training k of the r rank components; all send the same k.

scaled
    The forward pass sees :math:`(\alpha/r)\, B S A` with :math:`S = (r/k)\,\mathrm{diag}(1_K)`:
    :math:`\alpha/k` on the chosen components, nothing of the others. That is a LoRA adapter of
    rank k in its own right. Source: arXiv 2505.23555.
residual
    The forward pass sees the whole adapter, :math:`(\alpha/r)\, B A`; only the chosen components
    are trained, and the server multiplies their update by r/k. Derived in docs/theory.md.
leading
    The first k components and no others, with the factor :math:`\alpha/r`: what methods do that
    give a client a smaller adapter (`fedpace.federation.methods`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from fedpace.core.adapter import Components
from fedpace.core.errors import InputError
from fedpace.core.messages import ClientTask, draw_components
from fedpace.core.profile import Sketch
from fedpace.lora.adapter import ADAPTER_NAME, AdaptedModel


def components_of(task: ClientTask, lora_rank: int, sketch: Sketch) -> Components:
    """Draw a task's index set, or take the first components.

    Raises:
        InputError: its sketch rank is not in 1..r.
    """
    if not 1 <= task.sketch_rank <= lora_rank:
        raise InputError(
            f"client {task.client} has sketch rank {task.sketch_rank}; the adapter's rank is "
            f"{lora_rank}, so it must be 1 to {lora_rank}"
        )
    if sketch == "leading":
        return np.arange(task.sketch_rank)
    return draw_components(task.seed, task.round_index, task.client, lora_rank, task.sketch_rank)


def component_scale(sketch: Sketch, adapted: AdaptedModel, sketch_rank: int) -> float:
    """Factor of each component in the forward pass: alpha/k where scaled, else alpha/r."""
    return adapted.alpha / (sketch_rank if sketch == "scaled" else adapted.layout.rank)


@contextmanager
def lora_scaling(adapted: AdaptedModel, scale: float) -> Iterator[None]:
    """Let PEFT's layers multiply by `scale` in place of alpha/r."""
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
