"""How much of a run's computing is evaluation, told before it begins."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedpace.core.plan import Decision
from fedpace.core.profile import Floats
from fedpace.experiment.config import TrainingSection
from fedpace.lora.tokens import TokenisedExamples

LARGEST_SHARE = 0.2
"""Above it, a run says how many held-out examples would bring it below."""

_PASSES_OF_TRAINING = 2.0
"""A training step costs a forward pass and one backward through the frozen base, which needs no
gradient of its weights: about two forward passes."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What training and evaluation read."""

    examples: Floats
    """How many each client has, shape (N,)."""
    example_tokens: Floats
    """Their mean length, shape (N,)."""
    held_out: int
    """Examples of one evaluation."""
    held_out_tokens: int


def reading(clients: Sequence[TokenisedExamples], held_out: TokenisedExamples) -> Reading:
    """Count what clients train on and what is evaluated on."""
    sizes = np.array([len(own) for own in clients], dtype=np.float64)
    tokens = np.array([own.lengths.sum() for own in clients], dtype=np.float64)
    mean = tokens / np.maximum(sizes, 1.0)
    return Reading(sizes, mean, len(held_out), int(held_out.lengths.sum()))


def evaluation_share(read: Reading, decision: Decision, training: TrainingSection) -> float:
    """Return the share of evaluation in all passes through the model, 0 to 1.

    Args:
        read: for N clients.
        decision: who takes part how often, in synchronous rounds.
        training: its steps, batches and evaluations by rounds.
    """
    examples = training.local_steps * np.minimum(read.examples, training.batch_size)
    joins = decision.participation_probability()
    trained = _PASSES_OF_TRAINING * float(np.sum(joins * examples * read.example_tokens))
    return read.held_out_tokens / (read.held_out_tokens + training.eval_every * trained)


def told(share: float, held_out: int) -> str:
    """Say how much of the computing is evaluation, and where that is much what would be less.

    Example:
        >>> told(0.5, 400)
        'evaluation is 50 % of the computing; [data] max_eval = 100 would make it 20 %'
    """
    text = f"evaluation is {share:.0%} of the computing".replace("%", " %")
    if share <= LARGEST_SHARE:
        return text
    less = max(1, int(held_out * LARGEST_SHARE / (1.0 - LARGEST_SHARE) * (1.0 - share) / share))
    return f"{text}; [data] max_eval = {less} would make it {100 * LARGEST_SHARE:.0f} %"
