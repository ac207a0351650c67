"""Save an adapter in PEFT's format."""

from pathlib import Path

import numpy as np
import torch

from fedpace.core.adapter import MERGED, Adapter, AdapterLayout, Array
from fedpace.lora.adapter import ADAPTER_NAME, AdaptedModel, known_warnings, write_adapter


def save_adapter(adapted: AdaptedModel, adapter: Adapter, folder: str | Path) -> None:
    """Save an adapter, with the task head, so that `PeftModel.from_pretrained` loads it.

    What the adapter has merged into the base weights (`lora.merged`) is saved as LoRA, too, on
    the untouched base: at the rank that this takes, and with alpha in proportion.

    Args:
        adapted: the model that the adapter belongs to.
        adapter: name -> array.
        folder: where to; made if it is not there.
    """
    if any(name.startswith(MERGED) for name in adapter):
        return _save_at_its_rank(adapted, adapter, folder)
    write_adapter(adapted, adapter)
    with known_warnings():
        adapted.model.save_pretrained(str(folder), save_embedding_layers=False)


def _save_at_its_rank(adapted: AdaptedModel, adapter: Adapter, folder: str | Path) -> None:
    rank, plain = _as_plain_lora(adapter, adapted.layout)
    state = adapted.model.state_dict() | {n: torch.from_numpy(x) for n, x in plain.items()}
    config = adapted.model.peft_config[ADAPTER_NAME]
    before = config.r, config.lora_alpha
    try:
        config.r = rank
        config.lora_alpha = adapted.scale * (rank**0.5 if adapted.rslora else rank)
        with known_warnings():
            adapted.model.save_pretrained(
                str(folder), save_embedding_layers=False, state_dict=state
            )
    finally:
        config.r, config.lora_alpha = before


def _as_plain_lora(adapter: Adapter, layout: AdapterLayout) -> tuple[int, dict[str, Array]]:
    """Return an adapter without merged updates whose products include them.

    Each module's B A plus what was merged is factored by an SVD at its numerical rank in float32;
    the largest of these is the rank of all.

    Args:
        adapter: with merged updates.
        layout: of its A, B and head.

    Returns:
        The rank R, and A of R rows, B of R columns, the head; the factor alpha/r stays.
    """
    factored = {}
    for a, b in layout.modules:
        rows = adapter[a.name].reshape(layout.rank, -1).astype(np.float64)
        columns = adapter[b.name].reshape(-1, layout.rank).astype(np.float64)
        u, s, vt = np.linalg.svd(columns @ rows + adapter[MERGED + a.name], full_matrices=False)
        rank = int(np.sum(s > s[0] * max(u.shape[0], vt.shape[1]) * np.finfo(np.float32).eps))
        factored[a, b] = u[:, :rank] * s[:rank], vt[:rank]
    rank = max(1, *(len(rows) for _, rows in factored.values()))
    plain = {t.name: adapter[t.name] for t in layout.tensors if t.role == "head"}
    for (a, b), (columns, rows) in factored.items():
        missing = rank - len(rows)
        rows = np.pad(rows, ((0, missing), (0, 0))).astype(np.float32)
        columns = np.pad(columns, ((0, 0), (0, missing))).astype(np.float32)
        plain[a.name] = rows.reshape(rank, *a.shape[1:])
        plain[b.name] = columns.reshape(b.shape[0], rank, *b.shape[2:])
    return rank, plain
