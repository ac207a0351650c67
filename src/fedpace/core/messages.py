"""What crosses the seam between server and clients: arrays in dictionaries, nothing of torch."""

from dataclasses import dataclass

from fedpace.core.adapter import Adapter, Components
from fedpace.core.rng import rng_for

__all__ = ["ClientTask", "ClientUpdate", "draw_components"]


@dataclass(frozen=True, slots=True, eq=False)
class ClientTask:
    """What one client is asked to do in one round.

    The index set is not in it: client and server both derive it from the seed (`draw_components`).
    """

    client: int
    """Position of the client in the population, 0..N-1."""
    round_index: int
    adapter: Adapter
    """The global adapter at the start of the round, full size."""
    sketch_rank: int
    """k_n."""
    seed: int
    """The run's seed; sketch and batches are drawn from its streams."""


@dataclass(frozen=True, slots=True, eq=False)
class ClientUpdate:
    """What one client sends back."""

    client: int
    round_index: int
    components: Components
    """The index set it trained, shape (k,)."""
    delta: Adapter
    """Local minus global, X_{n,H} - X: k rows of every A, k columns of every B, the head whole."""
    train_loss: float
    """Mean loss over the local steps, before each step."""


def draw_components(
    seed: int, round_index: int, client: int, lora_rank: int, sketch_rank: int
) -> Components:
    """Draw a client's index set: `sketch_rank` of `lora_rank` components, uniformly, sorted.

    One set serves A and B and every adapted module of that client in that round (arXiv 2505.23555
    draws one S_n per client and round).
    """
    rng = rng_for(seed, "sketch", round_index, client)
    drawn = rng.choice(lora_rank, size=sketch_rank, replace=False)
    drawn.sort()
    return drawn.astype("int64")
