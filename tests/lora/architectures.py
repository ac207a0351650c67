"""Small random configurations of the architectures that docs/models.md lists."""

import transformers as t

_MAIN = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_ENCODER = {**_MAIN, "intermediate_size": 24, "max_position_embeddings": 40, "pad_token_id": 0}
_DECODER = {**_ENCODER, "num_key_value_heads": 1}
_HEAD = {**_DECODER, "head_dim": 8}
_EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
_PAIR = {"d_model": 16, "pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 4}

CAUSAL = {
    "llama": (t.LlamaForCausalLM, t.LlamaConfig, _DECODER),
    "qwen2": (t.Qwen2ForCausalLM, t.Qwen2Config, _DECODER),
    "qwen3": (t.Qwen3ForCausalLM, t.Qwen3Config, _HEAD),
    "gemma2": (t.Gemma2ForCausalLM, t.Gemma2Config, _HEAD),
    "gemma3_text": (t.Gemma3ForCausalLM, t.Gemma3TextConfig, _HEAD),
    "mistral": (t.MistralForCausalLM, t.MistralConfig, _HEAD),
    "mixtral": (t.MixtralForCausalLM, t.MixtralConfig, {**_HEAD, "num_local_experts": 4}),
    "qwen2_moe": (
        t.Qwen2MoeForCausalLM, t.Qwen2MoeConfig,
        {**_DECODER, **_EXPERTS, "shared_expert_intermediate_size": 16},
    ),
    "qwen3_moe": (t.Qwen3MoeForCausalLM, t.Qwen3MoeConfig, {**_HEAD, **_EXPERTS}),
    "phi3": (t.Phi3ForCausalLM, t.Phi3Config, _DECODER),
    "gpt2": (
        t.GPT2LMHeadModel, t.GPT2Config,
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40},
    ),
    "opt": (
        t.OPTForCausalLM, t.OPTConfig,
        {**_MAIN, "ffn_dim": 24, "word_embed_proj_dim": 16, "max_position_embeddings": 40,
         "pad_token_id": 0},
    ),
    "bloom": (t.BloomForCausalLM, t.BloomConfig, {"hidden_size": 16, "n_layer": 2, "n_head": 2}),
    "falcon": (t.FalconForCausalLM, t.FalconConfig, _MAIN),
    "gpt_neox": (t.GPTNeoXForCausalLM, t.GPTNeoXConfig, _ENCODER),
    "mamba": (
        t.MambaForCausalLM, t.MambaConfig,
        {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4},
    ),
}  # fmt: skip
"""Model type -> class, configuration class and options, of language models."""

CLASSIFIERS = {
    "bert": (t.BertModel, t.BertConfig, _ENCODER),
    "roberta": (t.RobertaModel, t.RobertaConfig, _ENCODER),
    "xlm-roberta": (t.XLMRobertaModel, t.XLMRobertaConfig, _ENCODER),
    "distilbert": (
        t.DistilBertModel, t.DistilBertConfig,
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40},
    ),
    "deberta-v2": (
        t.DebertaV2Model, t.DebertaV2Config,
        {**_ENCODER, "relative_attention": True, "position_buckets": 8, "share_att_key": True,
         "pos_att_type": ["p2c", "c2p"]},
    ),
    "modernbert": (t.ModernBertModel, t.ModernBertConfig, _ENCODER),
    "electra": (t.ElectraModel, t.ElectraConfig, {**_ENCODER, "embedding_size": 16}),
    "albert": (t.AlbertModel, t.AlbertConfig, {**_ENCODER, "embedding_size": 8}),
    "bart": (
        t.BartModel, t.BartConfig,
        {**_PAIR, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
         "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
         "max_position_embeddings": 40},
    ),
    "t5": (
        t.T5Model, t.T5Config,
        {**_PAIR, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
    ),
}  # fmt: skip
"""The same of classifiers, whose head is new."""
