import pytest
import torch

from fedpace.lora.checkpointing import checkpointing
from fedpace.lora.memory import default_max_tokens, token_bytes
from lora import tiny_models

pytestmark = pytest.mark.torch


def test_a_model_that_keeps_more_of_a_token_takes_fewer_at_once(folder, monkeypatch):
    model, _ = tiny_models.adapted(folder("llama"), "causal-lm")
    assert default_max_tokens(model) == 1024
    monkeypatch.setattr(model.base.model.config, "vocab_size", 2**20)
    # 2^20 logits in float32, as they are and twice for the loss: 12 MiB a token of 512 MiB.
    assert 40 < default_max_tokens(model) <= 42


@pytest.mark.parametrize("recomputed", [False, True])
def test_what_a_token_takes_is_near_what_autograd_keeps(folder, recomputed):
    """The tensors that the graph of one pass holds, counted by autograd's own hooks."""
    model, _ = tiny_models.adapted(folder("llama"), "causal-lm")
    for name, parameter in model.model.named_parameters():
        parameter.requires_grad_(name in model.initial)
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {p.untyped_storage().data_ptr() for p in model.model.parameters()}
    ids = torch.randint(4, 20, (4, 8), generator=torch.Generator().manual_seed(0))
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with checkpointing(model, recomputed), hooks:
        model.model(input_ids=ids, labels=ids)
    # What one layer of width 16 and inner width 24 computes again is seen by hooks of its own.
    again = (8 * 16 + 4 * 24) * 4 if recomputed else 0
    taken = token_bytes(model, recomputed=recomputed) - again
    assert 0.3 < sum(kept.values()) / ids.numel() / taken < 3
