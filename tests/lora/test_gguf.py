"""GGUF files: dequantised to the values that the `gguf` package reads, then a model like any."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fedpace.core.errors import InputError
from fedpace.lora import gguf, load_base
from lora.tiny_gguf import HEADS, LAYERS, WIDTH, write_gguf

pytest.importorskip("gguf")
pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDPACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


def by_hand(weights):
    """A Llama made of the file's weights, without transformers' reader of GGUF.

    GGUF keeps the rows of queries and keys in pairs, as llama.cpp rotates them.
    """
    paired = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj"}
    plain = {"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
             "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}  # fmt: skip
    embedding = weights["token_embd.weight"]
    state = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding,
             "model.norm.weight": weights["output_norm.weight"]}  # fmt: skip
    for i in range(LAYERS):
        for theirs, ours in (paired | plain).items():
            value = weights[f"blk.{i}.{theirs}.weight"]
            if theirs in paired:
                value = value.reshape(HEADS, -1, 2, WIDTH).swapaxes(1, 2).reshape(WIDTH, WIDTH)
            state[f"model.layers.{i}.{ours}.weight"] = value
    config = LlamaConfig(
        vocab_size=len(embedding), hidden_size=WIDTH, intermediate_size=64,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, max_position_embeddings=128,
        rms_norm_eps=1e-5, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.load_state_dict({k: torch.tensor(np.array(v)) for k, v in state.items()})
    return model.eval()


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_gguf_file_gives_the_model_that_its_weights_make(tmp_path, as_folder):
    path = tmp_path / "tiny.gguf"
    expected = by_hand(write_gguf(path))
    base = load_base(str(path.parent if as_folder else path), task="causal-lm")
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        found = base.model(tokens).logits
        torch.testing.assert_close(found, expected(tokens).logits, atol=1e-5, rtol=1e-5)


def test_tokenizer_and_chat_template_are_those_of_the_file(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    tokenizer = load_base(str(path), task="causal-lm").tokenizer
    ids = tokenizer("the cat sat")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[0] == "the"
    assert tokenizer.decode(ids) == "the cat sat"
    turns = [{"role": "user", "content": "the cat"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == (
        "<|im_start|>user\nthe cat<|im_end|>\n"
    )


def test_a_file_is_converted_once(tmp_path, cache, monkeypatch):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    first = gguf.converted(path)
    monkeypatch.setattr(gguf, "_convert", None)  # called once more, it would fail
    assert gguf.converted(path) == first
    assert [p.name for p in cache.iterdir()] == [first.name]


def test_another_content_under_the_same_name_is_another_model(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, seed=0)
    first = gguf.converted(path)
    write_gguf(path, seed=1)
    assert gguf.converted(path) != first


def test_a_conversion_that_fails_leaves_nothing(tmp_path, cache):
    path = tmp_path / "cut.gguf"
    write_gguf(path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(InputError, match=r"cut\.gguf"):
        load_base(str(path), task="causal-lm")
    assert list(cache.iterdir()) == []


def test_what_is_no_gguf_file_is_refused_in_one_line(tmp_path):
    pointer = tmp_path / "model.gguf"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="no GGUF file.*git lfs pull"):
        load_base(str(pointer), task="causal-lm")
    with pytest.raises(InputError, match="no such file"):
        load_base(str(tmp_path / "absent.gguf"), task="causal-lm")
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"2 GGUF files.*model\.gguf, other\.gguf"):
        load_base(str(tmp_path), task="causal-lm")


def test_a_gguf_model_takes_a_head_for_classification(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    base = load_base(str(path), task="classification", num_labels=3)
    assert base.new_modules == ("score",)
