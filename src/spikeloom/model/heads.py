"""Heads that name instead of continue: a label for every token, or one for a whole text.

    tokens   logits = W y + b                       at every token
    a text   logits = W y_last + b                  causal: the last token has read all
             logits = W mean(y) + b                 bidirectional: every token has

y is what the head neuron emits, as for the language model's head, so W is fed by spikes; the bias
is added once. Both heads load the backbone of a language model: `from_pretrained` of its
checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from spikeloom.model.huggingface import (
    SpikeloomConfig,
    SpikeloomModel,
    SpikeloomOutput,
    SpikeloomPreTrainedModel,
)
from spikeloom.model.products import SpikeLinear

IGNORED = -100  # a label that is not learned


class ClassificationModel(SpikeloomPreTrainedModel):
    """The backbone and a spike-fed product with `config.num_labels` rows."""

    accepts_loss_kwargs = False

    def __init__(self, config: SpikeloomConfig) -> None:
        super().__init__(config)
        self.model = SpikeloomModel(config)
        classes = len(config.id2label or {})
        self.classifier = SpikeLinear(self.model.decoder.head_neuron, classes, bias=True)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: Any) -> None:
        self.model.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SpikeloomOutput:
        """Logits, and with `labels` (`IGNORED` where there is none) the mean cross-entropy.

        Args:
            input_ids, inputs_embeds: `[B, L]` or `[B, L, D]`.
            attention_mask: `[B, L]`, 0 for padding, on either side.
            position_ids: `[B, L]`; by default counted from the first real token.
            labels: `[B, L]` for tokens, `[B]` for texts.
        """
        if position_ids is None and attention_mask is not None:
            position_ids = positions_of(attention_mask)
        output = self.model(input_ids, None, position_ids, inputs_embeds=inputs_embeds)
        logits = self.classifier(self.pool(output.last_hidden_state, attention_mask))
        loss = None
        if labels is not None:
            flat = logits.flatten(0, -2).float()
            loss = F.cross_entropy(flat, labels.flatten(), ignore_index=IGNORED)
        return SpikeloomOutput(loss, logits, output.last_hidden_state, None, output.firing_rates)

    def pool(self, emissions: Tensor, attention_mask: Tensor | None) -> Tensor:
        """What the classifier reads, from the head neuron's emissions `[B, L, D]`."""
        raise NotImplementedError


class SpikeloomForTokenClassification(ClassificationModel):
    """A label for every token: logits `[B, L, C]`."""

    def pool(self, emissions: Tensor, attention_mask: Tensor | None) -> Tensor:
        return emissions


class SpikeloomForSequenceClassification(ClassificationModel):
    """One label for a text: logits `[B, C]`."""

    def pool(self, emissions: Tensor, attention_mask: Tensor | None) -> Tensor:
        if attention_mask is None:
            attention_mask = torch.ones_like(emissions[..., 0])
        if self.config.bidirectional:
            return mean_of_tokens(emissions, attention_mask)
        places = torch.arange(emissions.shape[1], device=emissions.device)
        last = (places * (attention_mask != 0)).argmax(1)
        return emissions[torch.arange(len(last), device=last.device), last]


def positions_of(attention_mask: Tensor) -> Tensor:
    """Places counted from the first real token, `[B, L]`; every padding stands alone at 0.

    A token at position 0 starts a document, so nothing flows from padding into the text, whichever
    way it is read.
    """
    mask = attention_mask.long()
    return (mask.cumsum(-1) - 1).clamp(min=0) * mask


def mean_of_tokens(values: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean of values `[B, L, D]` over the real tokens, `[B, D]`."""
    weight = attention_mask.to(values.dtype)[..., None]
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1)


AutoModelForTokenClassification.register(SpikeloomConfig, SpikeloomForTokenClassification)
AutoModelForSequenceClassification.register(SpikeloomConfig, SpikeloomForSequenceClassification)
