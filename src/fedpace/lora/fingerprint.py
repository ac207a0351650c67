"""Whether two machines have the same base model: a hash of its weights."""

import hashlib

import torch

from fedpace.lora.adapter import AdaptedModel


def base_fingerprint(adapted: AdaptedModel) -> str:
    """Return a SHA-256 of the names, shapes and bytes of the frozen weights, 64 hex digits."""
    digest = hashlib.sha256()
    trained = {t.name for t in adapted.layout.tensors}
    for name, tensor in sorted(adapted.model.named_parameters()):
        if name not in trained:
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            flat = tensor.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
