"""Evaluation data must not be what is trained on, by whatever name or path they are given."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedpace.core.errors import InputError
from fedpace.data.rows import Table

logger = logging.getLogger(__name__)


def refuse_training_files(
    files: Sequence[Path], training: Sequence[Path], name: str | None
) -> None:
    """Refuse a file that is trained on: the same one by another path, or a link to it.

    Raises:
        InputError: one of the files is among the training files.
    """
    if any(file.samefile(other) for file in files for other in training):
        raise InputError(f"[data] eval = {name!r} is what is trained on; name other data")


def refuse_other_kind(train: Table, held: Table) -> None:
    """Check that held-out examples are of the kind that is trained on.

    Raises:
        InputError: they are of another.
    """
    if held.kind != train.kind:
        raise InputError(
            f"[data] eval: {held.places[0]} is of kind {held.kind!r}, the training data of kind "
            f"{train.kind!r}; both must be of one kind"
        )


def compare(train: Table, held: Table, name: str | None) -> None:
    """Check that held-out examples are other ones than those trained on.

    Examples that stand in both are counted and told.

    Raises:
        InputError: all of them are the training examples.
    """
    trained, evaluated = Counter(_texts(train)), Counter(_texts(held))
    if trained == evaluated:
        raise InputError(
            f"[data] eval = {name!r} is what is trained on: it holds the same examples; name "
            "other data"
        )
    both = sum(count for text, count in evaluated.items() if text in trained)
    if both:
        logger.warning("%d of %d evaluation examples are trained on, too", both, len(held.places))


def _texts(table: Table) -> Iterable[tuple[str, ...]]:
    columns = [column for name, column in table.texts.items() if name != "group"]
    return zip(*columns, strict=True)
