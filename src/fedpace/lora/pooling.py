"""Sequence classification from the mean of an encoder's last hidden states."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class MeanPooledClassifier(PreTrainedModel):
    """An encoder, the mean of its last hidden states over the text, and a linear head.

    Sentence encoders (all-MiniLM and its like) are trained for that mean; the first token, which
    the usual sequence classifiers read, says little in them.
    """

    config_class = PretrainedConfig
    base_model_prefix = "encoder"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True  # the encoder decides

    def __init__(self, encoder: PreTrainedModel) -> None:
        super().__init__(encoder.config)
        self.encoder = encoder
        width = encoder.config.get_text_config().hidden_size
        self.classifier = nn.Linear(width, encoder.config.num_labels, dtype=encoder.dtype)
        std = getattr(encoder.config, "initializer_range", 0.02)
        nn.init.normal_(self.classifier.weight, std=std)
        nn.init.zeros_(self.classifier.bias)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """Return logits, shape (rows, labels)."""
        # PEFT's wrapper passes options of its own; the encoder gets those that carry something.
        inputs = {name: value for name, value in inputs.items() if value is not None}
        inputs.pop("labels", None)
        hidden = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, **inputs
        ).last_hidden_state
        if attention_mask is None:
            attention_mask = torch.ones(hidden.shape[:2], device=hidden.device)
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
        return SequenceClassifierOutput(logits=self.classifier(pooled))

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's."""
        return self.encoder.get_input_embeddings()
