"""A run's curves as TensorBoard event files, one run a method."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedpace.core.errors import MissingExtraError
from fedpace.core.record import RoundRecord
from fedpace.reporting.curves import Write, numbers_of


def require_tensorboard() -> None:
    """Raise `MissingExtraError` where event files cannot be written."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise MissingExtraError("tensorboard", "tensorboard") from None


@contextmanager
def event_writer(folder: Path, first_round: int) -> Iterator[Write]:
    """Open event files; gives the function that adds a round to them.

    The horizontal axis is the round; TensorBoard's "relative" and "wall" time are the virtual
    clock, so that curves of several methods can be compared in seconds.

    Args:
        folder: of one method.
        first_round: what an interrupted run had written from this round on is superseded.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=first_round + 1) as writer:

        def write(record: RoundRecord) -> None:
            for name, value in numbers_of(record).items():
                writer.add_scalar(name, value, record.round + 1, walltime=record.clock_seconds)

        yield write
