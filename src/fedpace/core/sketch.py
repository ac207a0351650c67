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

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpace.core.adapter import Components
from fedpace.core.errors import InputError
from fedpace.core.messages import ClientTask, draw_components

__all__ = ["LEADING", "RESIDUAL", "SCALED", "Sketch", "sketch_named"]


@dataclass(frozen=True, slots=True)
class Sketch:
    """One way: which components, what the forward pass sees, and who multiplies by r/k."""

    name: str
    drawn: bool
    """Whether the k components are drawn at random; else they are the first."""
    whole: bool
    """Whether the forward pass sees all r components; else the k alone."""
    scaled_by: Literal["client", "server", "nobody"]
    """Who multiplies by r/k: the client in its forward pass, or the server the update."""

    def components(self, task: ClientTask, lora_rank: int) -> Components:
        """Return the index set of a task, the same at both ends.

        Raises:
            InputError: the task's sketch rank is not in 1..r.
        """
        if not 1 <= task.sketch_rank <= lora_rank:
            raise InputError(
                f"client {task.client} has sketch rank {task.sketch_rank}; the adapter's rank is "
                f"{lora_rank}, so it must be 1 to {lora_rank}"
            )
        if not self.drawn:
            return np.arange(task.sketch_rank, dtype=np.int64)
        return draw_components(
            task.seed, task.round_index, task.client, lora_rank, task.sketch_rank
        )

    def received_rank(self, sketch_rank: ArrayLike, lora_rank: int) -> NDArray[np.float64]:
        """Return how many components a client needs before it trains k of them, shape (N,)."""
        rank = np.asarray(sketch_rank, dtype=np.float64)
        return np.full_like(rank, lora_rank) if self.whole else rank

    def forward_rank(self, sketch_rank: int, lora_rank: int) -> int:
        """Return what alpha is divided by in a client's forward pass: k or r."""
        return sketch_rank if self.scaled_by == "client" else lora_rank

    def client_scale(self, sketch_rank: int, lora_rank: int) -> float:
        """Return the factor of a client's forward pass beside alpha/r: r/k or 1."""
        return lora_rank / self.forward_rank(sketch_rank, lora_rank)

    def server_scale(self, sketch_rank: int, lora_rank: int) -> float:
        """Return the server's factor of the LoRA part of an update: r/k or 1."""
        return lora_rank / sketch_rank if self.scaled_by == "server" else 1.0


SCALED = Sketch("scaled", drawn=True, whole=False, scaled_by="client")
RESIDUAL = Sketch("residual", drawn=True, whole=True, scaled_by="server")
LEADING = Sketch("leading", drawn=False, whole=False, scaled_by="nobody")


def sketch_named(name: str) -> Sketch:
    """Return the sketch of that name.

    Raises:
        InputError: there is none of that name.
    """
    known = {sketch.name: sketch for sketch in (SCALED, RESIDUAL, LEADING)}
    if name not in known:
        raise InputError(f"sketch {name!r} is unknown; choose one of {', '.join(known)}")
    return known[name]
