"""Dropout before A, with masks that belong to a client.

PEFT's own draws from torch's global generator, so that what a client trains would depend on who
shares a pass with it. Here each row of a mini-batch has masks from its client's own stream, and the
loop and the stack draw the same.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedpace.core.errors import RunError
from fedpace.core.messages import ClientTask
from fedpace.core.rng import rng_for
from fedpace.lora.adapter import ADAPTER_NAME, AdaptedModel
from fedpace.lora.tokens import Integers

Row = tuple[ClientTask, int, int]
"""Whose it is, in which local step, and its place in the mini-batch."""


@dataclass(slots=True, eq=False)
class Masks:
    """The masks of the rows that are in the model at the moment."""

    rate: float
    """Share of the inputs of A that are zero; the others are divided by 1 - rate."""
    rows: Sequence[Row] = ()
    lengths: Integers | None = None
    """Tokens of each row, shape (rows,); padding is left alone."""

    def now(self, rows: Sequence[Row], lengths: Integers) -> None:
        """Say which rows the next pass has."""
        self.rows, self.lengths = rows, lengths

    def drop(self, x: Tensor, module: int) -> Tensor:
        """Return the input of a module's A with some of it zero.

        Args:
            x: of all tokens of the rows, in their order; its last axis is A's input.
            module: which of the adapted modules.

        Raises:
            RunError: the module does not see the tokens of each row.
        """
        if self.rate == 0 or self.lengths is None:
            return x
        width, count = x.shape[-1], len(self.rows)
        if x.numel() % (count * width):
            raise RunError(
                f"[lora] dropout: adapted module {module} sees {tuple(x.shape)} for {count} rows; "
                "it mixes them, and no client's mask fits; set dropout = 0 or other target_modules"
            )
        tokens = x.reshape(count, -1, width)
        keep = np.ones(tokens.shape, dtype=np.float32)
        for place, ((task, step, row), length) in enumerate(
            zip(self.rows, self.lengths, strict=True)
        ):
            rng = rng_for(task.seed, "dropout", task.round_index, task.client, step, row, module)
            own = keep[place, :length]
            own[:] = (rng.random(own.shape, dtype=np.float32) >= self.rate) / (1.0 - self.rate)
        return (tokens * torch.from_numpy(keep).to(x)).reshape(x.shape)


@contextmanager
def dropping(adapted: AdaptedModel, rate: float) -> Iterator[Masks]:
    """Let PEFT's LoRA layers drop by a client's masks; afterwards they drop nothing again."""
    masks = Masks(rate)
    before = {}
    try:
        if rate > 0:
            for module, layer in enumerate(adapted.lora_modules.values()):
                before[module] = layer, layer.lora_dropout[ADAPTER_NAME]
                layer.lora_dropout[ADAPTER_NAME] = _Dropping(masks, module)
        yield masks
    finally:
        for layer, module in before.values():
            layer.lora_dropout[ADAPTER_NAME] = module


class _Dropping(nn.Module):
    def __init__(self, masks: Masks, module: int) -> None:
        super().__init__()
        self._masks, self._module = masks, module

    def forward(self, x: Tensor) -> Tensor:
        return self._masks.drop(x, self._module)
