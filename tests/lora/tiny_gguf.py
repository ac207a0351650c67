"""A tiny Llama as a GGUF file, quantised, with its tokenizer and chat template, made here."""

from pathlib import Path

import numpy as np

WIDTH, LAYERS, HEADS, FFN = 32, 2, 4, 64
WORDS = ["the", "cat", "sat", "yes", "no", "question", "answer", "user", "assistant", "system"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_gguf(path: Path, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Write the file; returns every weight as it reads back after quantisation, by GGUF's name."""
    import gguf

    tokens, merges = _byte_level_vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(merges)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    rng, kept = np.random.default_rng(seed), {}
    for name, shape in _shapes(len(tokens)).items():
        value = (
            np.ones(shape) if len(shape) == 1 else rng.standard_normal(shape) / np.sqrt(shape[-1])
        )
        value = value.astype(np.float32)
        if len(shape) == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quantize(value, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
            kept[name] = gguf.dequantize(packed, kind)
        else:
            writer.add_tensor(name, value)
            kept[name] = value
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


def _byte_level_vocabulary() -> tuple[list[str], list[str]]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *bytes_to_unicode().values()]
    merges = []
    for word in WORDS:
        for text in (word, "Ġ" + word):
            whole = text[0]
            for letter in text[1:]:
                if f"{whole} {letter}" not in merges:
                    merges.append(f"{whole} {letter}")
                whole += letter
                if whole not in tokens:
                    tokens.append(whole)
    return tokens, merges


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary, WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.attn_{x}.weight": (WIDTH, WIDTH) for x in ("q", "k", "v", "output")}
        shapes |= {f"blk.{i}.{x}_norm.weight": (WIDTH,) for x in ("attn", "ffn")}
        shapes |= {f"blk.{i}.ffn_{x}.weight": (FFN, WIDTH) for x in ("gate", "up")}
        shapes |= {f"blk.{i}.ffn_down.weight": (WIDTH, FFN)}
    return shapes
