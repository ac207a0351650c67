"""Labelled or instructed text, as every data source delivers it and every task consumes it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Turn = tuple[str, str]
"""(role, words) of a conversation; roles are "system", "user" and "assistant"."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """M text examples of one kind; the columns that the kind does not have are None.

    ============  =================================================
    kind          columns
    ============  =================================================
    "single"      text, label
    "pair"        text, text_pair, label
    "instruct"    text (the prompt), response, choices if there are
    "corpus"      text (a passage)
    "chat"        turns, text (the same, a line a turn)
    ============  =================================================
    """

    kind: str
    text: tuple[str, ...]
    text_pair: tuple[str, ...] | None = None
    response: tuple[str, ...] | None = None
    turns: tuple[tuple[Turn, ...], ...] | None = None
    """The conversation of each example; at least one turn is the assistant's."""
    label: NDArray[np.int64] | None = None
    """Shape (M,), in 0..len(label_names)-1."""
    label_names: tuple[str, ...] | None = None
    group: tuple[str, ...] | None = None
    """A natural partition: module, speaker, domain, ..."""
    choices: tuple[tuple[str, ...], ...] | None = None
    """The answers that each question allows, the response among them; empty where it is open."""

    def __len__(self) -> int:
        return len(self.text)

    def take(self, index: ArrayLike) -> "Examples":
        """Return the examples at `index`, in that order."""
        rows = np.asarray(index, dtype=np.int64)

        def pick(column: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
            return None if column is None else tuple(column[i] for i in rows)

        text: Any = pick(self.text)
        return Examples(
            self.kind, text, pick(self.text_pair), pick(self.response), pick(self.turns),
            None if self.label is None else self.label[rows], self.label_names, pick(self.group),
            pick(self.choices),
        )  # fmt: skip

    def renumbered(self, order: Sequence[int]) -> "Examples":
        """Return the examples with their classes in another order.

        Args:
            order: the present number of each class, in the order to be; a permutation.

        Example:
            >>> one = Examples("single", ("a",), label=np.array([0]), label_names=("no", "yes"))
            >>> one.renumbered([1, 0]).label.tolist(), one.renumbered([1, 0]).label_names
            ([1], ('yes', 'no'))
        """
        if self.label is None or self.label_names is None or list(order) == sorted(order):
            return self
        names = tuple(self.label_names[c] for c in order)
        return replace(self, label=np.argsort(order)[self.label], label_names=names)
