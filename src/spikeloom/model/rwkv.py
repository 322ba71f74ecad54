"""RWKV-4's time mixing (Peng et al. 2023), behind which SpikeGPT spikes (Zhu et al. 2023).

    k, v, r = W_k shift(y), W_v shift(y), W_r shift(y)
    out = sigmoid(r) * wkv(k, v)

`shift` mixes a token with the one before it (`model.shift`), each use with shares of its own; `wkv`
is in `spikeloom.ops.wkv`. What the products read is dense: SpikeGPT's neurons stand behind the
blocks (`mixer_spikes`, `mlp_spikes` of a layer). Channel mixing is `model.mlps.ChannelMixing`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spikeloom.config import LayerConfig, ModelConfig
from spikeloom.model.products import SpikeLinear
from spikeloom.model.shift import TokenShift, one_back
from spikeloom.model.state import LayerState, TokenView
from spikeloom.neurons import Neuron, Wire
from spikeloom.ops.wkv import wkv


class TimeMixing(nn.Module):
    """Values of all earlier tokens, weighed by keys and by a decay per channel."""

    def __init__(self, config: ModelConfig, layer: LayerConfig, neuron: Neuron | Wire) -> None:
        super().__init__()
        size = config.hidden_size
        self.k_shift, self.v_shift, self.r_shift = (TokenShift(size) for _ in range(3))
        self.k_proj = SpikeLinear(self.k_shift, size)
        self.v_proj = SpikeLinear(self.v_shift, size)
        self.r_proj = SpikeLinear(self.r_shift, size)
        self.log_decay = nn.Parameter(torch.empty(size))
        self.bonus = nn.Parameter(torch.empty(size))

    def reset_parameters(self) -> None:
        """Decays per token from exp(-5) to exp(3) over the channels, as RWKV-4 has them."""
        from transformers import initialization as init

        places = torch.linspace(0, 1, len(self.log_decay))
        zigzag = torch.arange(1, len(self.bonus) + 1) % 3 - 1
        init.copy_(self.log_decay, 8 * places**1.35 - 5)
        init.copy_(self.bonus, math.log(0.3) + 0.5 * zigzag)

    def forward(
        self, y: Tensor, view: TokenView, state: LayerState | None
    ) -> tuple[Tensor, LayerState, list[Tensor]]:
        kept = state or {}
        before = one_back(y, kept.get("shifted"), view.starts)
        (y_k, _, rate_k), (y_v, _, rate_v), (y_r, _, rate_r) = (
            shift(y, before) for shift in (self.k_shift, self.v_shift, self.r_shift)
        )
        k, v, r = self.k_proj(y_k), self.v_proj(y_v), self.r_proj(y_r)
        mixed, sums = wkv(k, v, self.log_decay.exp(), self.bonus, kept.get("sums"), view.starts)
        new_state = {} if state is None else {"shifted": y[:, -1], "sums": sums}
        return torch.sigmoid(r) * mixed, new_state, [rate_k, rate_v, rate_r]
