"""FlexLoRA: the products are averaged; an SVD makes adapters of any rank of the result.

Bai et al., "Federated Fine-tuning of Large Language Models under Heterogeneous Tasks and Client
Resources", NeurIPS 2024, arXiv 2402.11505.
"""

from dataclasses import replace

import numpy as np

from fedpace.core.adapter import Adapter, Array, squared_norms
from fedpace.core.sketch import LEADING
from fedpace.federation.aggregation import (
    Aggregate,
    Aggregation,
    Memory,
    MethodContext,
    Returned,
    aggregate,
)
from fedpace.federation.methods.products import as_matrix, local_adapters


def flexlora(context: MethodContext) -> Aggregation:
    r"""Move to the leading r components of :math:`\sum_n p_n B_n A_n = U S V'`: B = U S, A = V'.

    A client gets the leading k_n of them. p_n are the data weights over those of the participants.

    Ours: the server keeps the leading r, the largest rank a client can have, and evaluates those;
    the singular values go to B, so that A keeps rows of about its initial length. Components
    without a singular value (few participants of small rank) keep their A, and B is zero there.
    """
    layout = context.layout

    def average(adapter: Adapter, memory: Memory, back: Returned) -> tuple[Aggregate, Memory]:
        weights = back.share() if back.updates else []
        result = aggregate(back.updates, weights, layout, LEADING)
        if not back.updates:
            return result, memory
        local, update = local_adapters(back, layout), result.update
        for a, b in layout.modules:
            u, s, vt = leading(*local.stacked(a, b, weights), layout.rank)
            rows = as_matrix(adapter[a.name], a).copy()
            columns = np.zeros_like(as_matrix(adapter[b.name], b))
            rows[: len(s)], columns[:, : len(s)] = vt, u * s
            update[a.name] = rows.reshape(a.shape) - adapter[a.name]
            update[b.name] = columns.reshape(b.shape) - adapter[b.name]
        return replace(result, update=update, squared_norms=squared_norms(update, layout)), memory

    return Aggregation(LEADING, average)


def leading(columns: Array, rows: Array, rank: int) -> tuple[Array, Array, Array]:
    """Return the leading singular triples of a product.

    Args:
        columns: shape (d_out, K).
        rows: shape (K, d_in).
        rank: how many at most.

    Returns:
        U (d_out, m), S (m,), V' (m, d_in) with m the least of `rank` and the four sizes; all NaN
        where the product of a run that diverged is not finite: it has no singular values.
    """
    wide, high = columns.astype(np.float64), rows.astype(np.float64)
    # The product has no more than K singular values; beyond them an SVD returns rounding.
    m = min(rank, wide.shape[1], wide.shape[0], high.shape[1])
    if not (np.isfinite(wide).all() and np.isfinite(high).all()):
        sizes = (len(wide), m), (m,), (m, high.shape[1])
        u, s, vt = (np.full(size, np.nan, np.float32) for size in sizes)
        return u, s, vt
    if 2 * wide.shape[1] <= min(wide.shape[0], high.shape[1]):  # measured: QR pays up to there
        q, inner = np.linalg.qr(wide)
        p, outer = np.linalg.qr(high.T)
        u, s, vt = np.linalg.svd(inner @ outer.T)
        u, vt = q @ u, vt @ p.T
    else:
        u, s, vt = np.linalg.svd(wide @ high, full_matrices=False)
    return u[:, :m].astype(np.float32), s[:m].astype(np.float32), vt[:m].astype(np.float32)
