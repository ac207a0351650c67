"""Which rows go through the model together: few passes against little padding."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_PASS_TOKENS = 64
"""What a pass costs beyond its tokens, in tokens; 39 to 127 measured on 1 to 4 threads."""


def group_by_length(lengths: NDArray[np.int64], max_tokens: int) -> list[NDArray[np.int64]]:
    r"""Divide rows into groups, each padded to its longest, at the least cost.

    A group of m rows of which the longest has l tokens costs :math:`64 + m l`. Among rows sorted
    by length the best groups are runs, and the best division ends at row j with the run that
    begins at the i of least :math:`C_i + 64 + (j - i)\, l_i`: a shortest path.

    Args:
        lengths: tokens of each row, shape (M,).
        max_tokens: most tokens of a group, padding included; a longer row goes alone.

    Returns:
        Row numbers of each group, ascending; shortest rows first.

    Example:
        >>> [rows.tolist() for rows in group_by_length(np.array([9, 200, 8, 190]), 4096)]
        [[0, 2], [1, 3]]
    """
    order = np.argsort(-lengths, kind="stable")
    longest = lengths[order]
    count = len(order)
    cost = np.full(count + 1, np.inf)
    cost[0] = 0.0
    start = np.zeros(count + 1, dtype=np.int64)
    for i in range(count):
        last = min(count, i + max(1, max_tokens // int(longest[i])))
        ends = np.arange(i + 1, last + 1)
        costs = cost[i] + _PASS_TOKENS + (ends - i) * longest[i]
        better = ends[costs < cost[ends]]
        cost[better] = costs[better - i - 1]
        start[better] = i
    groups = []
    end = count
    while end:
        groups.append(np.sort(order[start[end] : end]))
        end = int(start[end])
    return groups


def cost(lengths: NDArray[np.int64], groups: Sequence[NDArray[np.int64]]) -> float:
    """Return what passes with these rows cost, in tokens; the sum that `group_by_length` minimises.

    Example:
        >>> cost(np.array([9, 200, 8, 190]), [np.array([0, 2]), np.array([1, 3])])
        546.0
    """
    return float(sum(_PASS_TOKENS + len(rows) * lengths[rows].max() for rows in groups))
