"""The head of a trained checkpoint: which class is which in it."""

import logging
import re
from collections.abc import Sequence
from typing import Any

logger = logging.getLogger(__name__)


def class_names(config: Any) -> tuple[str, ...] | None:
    """Return the class names that a checkpoint with a classification head states, in its order.

    Args:
        config: of the checkpoint, as transformers reads it.

    Returns:
        None where it has no such head, or its names are the library's own ("LABEL_0").
    """
    architectures = getattr(config, "architectures", None) or []
    if not any("SequenceClassification" in str(name) for name in architectures):
        return None
    stated = getattr(config, "id2label", None) or {}
    names = [str(stated.get(c, "")) for c in range(len(stated))]
    if not all(names) or all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        return None
    return tuple(names)


def class_order(names: Sequence[str], stated: Sequence[str] | None, model: str) -> list[int]:
    """Return the order in which the data's classes fit the head that is kept.

    Args:
        names: class names of the data.
        stated: of the head; None where it states none.
        model: its name, for a message.

    Returns:
        The position in `names` of each class of the head; the data's own order where the head
        states none, has another number of classes (and is replaced), or the data only have
        numbers. Where the names are other ones the head is kept, too, and that is told.

    Example:
        >>> class_order(["no", "yes"], ["YES", "No"], "m")
        [1, 0]
    """
    own = list(range(len(names)))
    if stated is None or len(stated) != len(names) or all(n.isdecimal() for n in names):
        return own
    position = {name.casefold(): c for c, name in enumerate(names)}
    order = [position.get(name.casefold(), -1) for name in stated]
    if sorted(order) == own:
        return order
    logger.warning(
        "model %s: its head was trained for the classes %s and is kept for %s",
        model, ", ".join(stated), ", ".join(names),
    )  # fmt: skip
    return own
