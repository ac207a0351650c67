"""What a client does in a round, whichever trainer does it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from fedpace.core.adapter import ROLES, Role
from fedpace.core.errors import InputError
from fedpace.core.messages import ClientTask
from fedpace.core.sketch import RESIDUAL, Sketch
from fedpace.lora.tasks import draw_batches
from fedpace.lora.tokens import Integers, TokenisedExamples

_OPTIMIZERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
ClientExamples = Sequence[TokenisedExamples] | Mapping[int, TokenisedExamples]
"""Each client's examples by its position in the population."""


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """Steps, batch, optimiser and sketch of local training.

    Raises:
        InputError: a value is out of its range.
    """

    local_steps: int = 5
    """H."""
    batch_size: int = 4
    """Examples a step; a client that has fewer uses all it has."""
    learning_rate: float = 0.1
    """eta."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Its state starts afresh in every round."""
    weight_decay: float = 0.0
    dropout: float = 0.0
    """Share of each A's inputs that a step leaves out, by masks of the client's own."""
    gradient_checkpointing: bool = False
    """Keep of each layer its input alone and compute the rest again on the way back."""
    sketch: Sketch = RESIDUAL
    trained: tuple[Role, ...] = ROLES
    """What is trained and sent; the other tensors stay as they are."""

    def __post_init__(self) -> None:
        if self.local_steps < 1 or self.batch_size < 1:
            raise InputError(
                f"training.local_steps is {self.local_steps} and batch_size {self.batch_size}; "
                "both must be at least 1"
            )
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise InputError(
                f"training.learning_rate is {self.learning_rate} and weight_decay "
                f"{self.weight_decay}; they must be above and not below 0"
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora.dropout is {self.dropout}; it must be at least 0 and below 1")
        if self.optimizer not in _OPTIMIZERS:
            raise InputError(
                f'training.optimizer is "{self.optimizer}"; it must be "sgd" or "adamw"'
            )
        if not isinstance(self.sketch, Sketch):
            raise InputError(f'sketch is "{self.sketch}"; it must be one of fedpace.core.sketch')

    def make_optimizer(self, tensors: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
        """Return a fresh local optimiser; it works entry by entry, so stacked clients share one."""
        kind = _OPTIMIZERS[self.optimizer]
        return kind(tensors, lr=self.learning_rate, weight_decay=self.weight_decay)

    def draw_batches(self, task: ClientTask, examples: TokenisedExamples) -> list[Integers]:
        """Draw the rows of a client's H mini-batches."""
        return draw_batches(
            task.seed,
            task.round_index,
            task.client,
            examples=len(examples),
            batch_size=self.batch_size,
            count=self.local_steps,
        )


def examples_of(clients: ClientExamples, task: ClientTask) -> TokenisedExamples:
    """Return the examples of a task's client.

    Raises:
        InputError: it has none.
    """
    if isinstance(clients, Mapping):
        known = task.client in clients
    else:
        known = 0 <= task.client < len(clients)
    if not known or not len(clients[task.client]):
        raise InputError(
            f"client {task.client} has no examples to train on; "
            "leave it out of the population, or partition the data anew"
        )
    return clients[task.client]
