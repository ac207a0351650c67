"""How many tokens go through a model at once: enough to keep the device busy, within memory.

The number follows from the model alone, never from what is free at the moment: the same run has the
same bits on every machine.
"""

from fedpace.lora.adapter import AdaptedModel

_MOST_TOKENS = {"cpu": 1024, "accelerator": 16384}
"""Tokens at once at most. On a processor 256 to 4096 take the same time within a tenth."""
_PASS_BYTES = {"cpu": 2**29, "accelerator": 2**33}
"""Memory of a pass, about; a single example that takes more goes alone."""


def default_max_tokens(adapted: AdaptedModel) -> int:
    """Return the most tokens, padding included, that should go through a model at once.

    Example:
        A model of 135 million parameters with 49,152 tokens has about 470 in bfloat16, the default
        encoder 1024.
    """
    kind = "cpu" if adapted.device.type == "cpu" else "accelerator"
    return int(min(_MOST_TOKENS[kind], _PASS_BYTES[kind] / token_bytes(adapted)))


def token_bytes(adapted: AdaptedModel, *, recomputed: bool = False) -> float:
    """Return about what a token takes while a pass and its gradients are computed, bytes.

    Per layer what norms, attention and the feed-forward part keep for the way back: eight vectors
    of the width and four of the inner width. A language model besides keeps the logits of a token
    in the base's type and, for the loss and its gradient, twice in float32.

    Args:
        adapted: the model.
        recomputed: by gradient checkpointing: of a layer its input alone is kept, and one layer at
            a time has the rest.
    """
    model = adapted.base.model
    text, size = model.config.get_text_config(), model.dtype.itemsize
    width = getattr(text, "hidden_size", None) or 1
    inner = getattr(text, "intermediate_size", None) or 4 * width
    layers = getattr(text, "num_hidden_layers", None) or 1
    within = 8 * width + 4 * inner
    kept = (layers * width + within if recomputed else layers * within) * size
    if adapted.base.task == "causal-lm":
        kept += text.vocab_size * (size + 8)
    return float(kept)
