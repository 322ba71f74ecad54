"""Mixers: how a token reads the tokens before it.

A mixer takes what the input neuron emits, `y` `[B, L, D]`, and returns the mixed values
`[B, L, D]` (before the output neuron), its new state, and the rates of neurons of its own.
`attention` is softmax attention over a cache of keys and values; `sdsa` reads a state matrix of
constant size, `sdsa_hadamard` a state vector. `recurrent_lif` leaves the mixing to the output
neuron (`model.recurrent`). `rwkv` is the time mixing of another family (`model.rwkv`).
"""

from __future__ import annotations

import math
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.config import LayerConfig, ModelConfig
from spikeloom.model.norm import RMSNorm
from spikeloom.model.products import SpikeLinear
from spikeloom.model.recurrent import InputCurrent
from spikeloom.model.rotary import rotate
from spikeloom.model.rwkv import TimeMixing
from spikeloom.model.salience import Salience
from spikeloom.model.state import LayerState, TokenView
from spikeloom.neurons import Neuron, Wire
from spikeloom.ops import attention
from spikeloom.ops.attention import hadamard


class Mixer(nn.Module):
    """Shared part: spike-fed q, k, v products, head split, normalised q and k."""

    def __init__(self, config: ModelConfig, layer: LayerConfig, neuron: Neuron | Wire) -> None:
        super().__init__()
        self.layer = layer
        self.causal = not config.bidirectional
        self.head_dim = config.head_dim
        width = config.head_dim * config.key_value_heads
        self.q_proj = SpikeLinear(neuron, config.hidden_size)
        self.k_proj = SpikeLinear(neuron, width)
        self.v_proj = SpikeLinear(neuron, width)
        norm = config.qk_norm
        self.q_norm = RMSNorm(self.head_dim, eps=config.rms_norm_eps) if norm else nn.Identity()
        self.k_norm = RMSNorm(self.head_dim, eps=config.rms_norm_eps) if norm else nn.Identity()

    def heads(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q `[B, H, L, K]`, k and v `[B, H_kv, L, K]` from emissions `[B, L, D]`."""
        q, k, v = (
            projection(y).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v


class SoftmaxAttention(Mixer):
    """Grouped-query softmax attention with rotary positions and an optional sliding window."""

    def __init__(self, config: ModelConfig, layer: LayerConfig, neuron: Neuron | Wire) -> None:
        super().__init__(config, layer, neuron)
        self.rope_theta = layer.rope_theta or config.rope_theta
        self.salience = None if layer.salience is None else Salience(layer.salience, neuron)

    def forward(
        self, y: Tensor, view: TokenView, state: LayerState | None
    ) -> tuple[Tensor, LayerState, list[Tensor]]:
        q, k, v = self.heads(y)
        chosen, membrane, rates = None, None, []
        if self.salience is not None:
            v, chosen, membrane, rates = self.salience(y, v, state, view)
        q, k = (rotate(x, view.rotations[self.rope_theta]) for x in (q, k))
        if state:
            k, v = view.join(state["keys"], k), view.join(state["values"], v)
            chosen = None if chosen is None else torch.cat([state["chosen"], chosen], dim=1)
        window = self.layer.sliding_window
        if view.plain and window is not None and q.shape[2] == 1:
            k, v = k[:, :, -window:], v[:, :, -window:]
        stride = self.layer.key_stride
        mask = view.mask(k.shape[2], window, stride, chosen, causal=self.causal)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=self.causal and mask is None and q.shape[2] > 1,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        kept = slice(None) if window is None else slice(-max(window - 1, 1), None)
        new_state = {} if state is None else {"keys": k[:, :, kept], "values": v[:, :, kept]}
        if state is not None and chosen is not None:
            new_state["chosen"] = chosen[:, kept]
            new_state |= {} if membrane is None else {"salience": membrane}
        return out.transpose(1, 2).flatten(2), new_state, rates


class SpikeDrivenAttention(Mixer):
    """Causal SDSA: a K x V state per head that decays and is read by the query, O(1) per token.

    The decay is learned per head (spread at the start from 8 to 512 tokens of memory), or, `gated`,
    also depends on the token through a small spike-fed product. A bidirectional model adds what the
    same state holds when the text is read from its end.
    """

    def __init__(self, config: ModelConfig, layer: LayerConfig, neuron: Neuron | Wire) -> None:
        super().__init__(config, layer, neuron)
        self.groups = config.num_attention_heads // config.key_value_heads
        decays = layer.decay != "none"
        heads = torch.empty(config.num_attention_heads)
        self.raw_decay = nn.Parameter(heads) if decays else None
        gated = layer.decay == "gated"
        self.decay_proj = SpikeLinear(neuron, config.num_attention_heads) if gated else None

    def reset_parameters(self) -> None:
        """Memories of 8 to 512 tokens, evenly spread on a logarithmic scale over the heads."""
        from transformers import initialization as init

        if self.raw_decay is None:
            return
        tokens = torch.logspace(math.log10(8), math.log10(512), self.raw_decay.numel())
        init.copy_(self.raw_decay, torch.log(torch.expm1(1.0 / tokens)))

    def log_decay(self, y: Tensor) -> Tensor:
        """`[B, H, L]`, below 0 (0 where nothing is forgotten)."""
        at_least = torch.promote_types(y.dtype, torch.float32)
        if self.raw_decay is None:
            heads = self.q_proj.out_features // self.head_dim
            return y.new_zeros(y.shape[0], heads, y.shape[1], dtype=at_least)
        raw = self.raw_decay.to(at_least).expand(*y.shape[:2], -1)
        if self.decay_proj is not None:
            raw = raw + self.decay_proj(y).to(at_least)
        # -softplus(raw); its own backward has other strides than AOT autograd is told
        return F.logsigmoid(-raw).transpose(1, 2)

    def forward(
        self, y: Tensor, view: TokenView, state: LayerState | None
    ) -> tuple[Tensor, LayerState, list[Tensor]]:
        q, k, v = self.heads(y)
        k, v = (x.repeat_interleave(self.groups, dim=1) for x in (k, v))
        memory = state.get("memory") if state else None
        decay = self.log_decay(y)
        out, memory = self.read(attention, q, k, v, decay, memory, view.starts)
        if not self.causal:
            turned = (x.flip(2) for x in (q, k, v, decay))
            back, _ = self.read(attention, *turned, None, view.ends_reversed)
            out = out + back.flip(2)
        return out.transpose(1, 2).flatten(2), {} if state is None else {"memory": memory}, []

    def read(
        self, form: ModuleType, q: Tensor, k: Tensor, v: Tensor, *memory: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The mixed values `[B, H, L, K]` and the state that is left, in one of the forms."""
        out, left = form.sdsa(q / math.sqrt(self.head_dim), k, v, *memory)
        return out, left


class HadamardAttention(SpikeDrivenAttention):
    """The seed's form: keys and values meet elementwise, so the state is a vector per head.

    The seed forgets nothing (`decay: none`), and its sum grows with the context; with a decay it
    stays bounded. Neither is normalised here: the norm before the output neuron does that.
    """

    def read(
        self, form: ModuleType, q: Tensor, k: Tensor, v: Tensor, *memory: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return hadamard.sdsa(form, q, k, v, *memory)


MIXERS = {
    "attention": SoftmaxAttention,
    "sdsa": SpikeDrivenAttention,
    "sdsa_hadamard": HadamardAttention,
    "recurrent_lif": InputCurrent,
    "rwkv": TimeMixing,
}
