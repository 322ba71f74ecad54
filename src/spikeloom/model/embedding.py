"""How tokens enter the residual stream, and how it leaves towards the vocabulary.

By default the embedding is a lookup of the stream's width and nothing stands in between. With
`embedding_size: E` tokens come in as spikes, and leave by the same table:

    encoder    s = neuron(sqrt(E) * embedding[token])     x = encoder_proj(s)
    readout    h = readout_proj(neuron(norm(x)))          logits = embedding neuron(h)

The encoder neuron with `surrogate: sigmoid` is a straight-through spike encoder: it sends 1 where
p = sigmoid(2 (e - v_threshold)) is at least 1/2, and passes the gradient of p.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from spikeloom.config import ModelConfig
from spikeloom.model.products import SpikeLinear
from spikeloom.neurons import make_neuron


class Encoder(nn.Module):
    """Embeddings `[B, L, E]` to the residual stream `[B, L, D]`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.encoder_size)  # embeddings start at variance 1 / E
        self.neuron = make_neuron(config.neurons.encoder, config.encoder_size, config.num_steps)
        self.encoder_proj = SpikeLinear(self.neuron, config.hidden_size)

    def forward(
        self, x: Tensor, membrane: Tensor | None, starts: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        s, membrane, rate = self.neuron(self.scale * x, membrane, starts)
        return self.encoder_proj(s), membrane, rate


class Readout(nn.Module):
    """The residual stream `[B, L, D]` back to the width of the embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.neuron = make_neuron(config.neurons.head, config.hidden_size, config.num_steps)
        self.readout_proj = SpikeLinear(self.neuron, config.encoder_size)

    def forward(
        self, x: Tensor, membrane: Tensor | None, starts: Tensor | None, norm: nn.Module
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        y, membrane, rate = self.neuron(x, membrane, starts, norm)
        return self.readout_proj(y), membrane, rate
