"""The decoder: embedding, layers as the config lists them, head neuron.

    x = embedding[tokens]
    per layer:  x = x + o(neuron(norm(mixer(neuron(norm(x))))))
                x = x + down(neuron(activate(up(neuron(norm(x))))))
    logits = head(neuron(norm(x)))

A layer may put a rate code behind o and down (`spikeloom.model.rate_code`). The residual stream x
is continuous; every weight product reads what a neuron emits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from spikeloom.config import LayerConfig, ModelConfig
from spikeloom.model.mixers import MIXERS
from spikeloom.model.mlps import MLPS
from spikeloom.model.norm import RMSNorm
from spikeloom.model.prediction import Prediction
from spikeloom.model.products import SpikeLinear
from spikeloom.model.rate_code import make_rate_code
from spikeloom.model.rotary import rotation
from spikeloom.model.state import DecoderState, LayerState, TokenView, view_tokens
from spikeloom.neurons import make_neuron


class MixerBlock(nn.Module):
    """norm, neuron, mixer, norm, neuron, output product; a rate code, if the layer has one."""

    def __init__(self, config: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()
        size, T, neurons = config.hidden_size, config.num_steps, config.neurons_of(layer)
        self.norm = RMSNorm(size, eps=config.rms_norm_eps)
        self.input_neuron = make_neuron(neurons.mixer_input, size, T)
        self.mixer = MIXERS[layer.mixer](config, layer, self.input_neuron)
        normed = config.output_norm
        self.output_norm = RMSNorm(size, eps=config.rms_norm_eps) if normed else nn.Identity()
        self.output_neuron = make_neuron(neurons.mixer_output, size, T)
        self.o_proj = SpikeLinear(self.output_neuron, size, into_residual=True)
        self.rate_code = make_rate_code(layer.mixer_rate, size)

    def forward(
        self, x: Tensor, view: TokenView, state: LayerState | None
    ) -> tuple[Tensor, LayerState, list[Tensor]]:
        membranes = state or {}
        y, v_in, rate_in = self.input_neuron(x, membranes.get("input"), view.starts, self.norm)
        mixed, new_state, rates_within = self.mixer(y, view, state)
        z, v_out, rate_out = self.output_neuron(
            mixed, membranes.get("output"), view.starts, self.output_norm
        )
        out, rates = self.rate_code(self.o_proj(z))
        rates = [rate_in, *rates_within, rate_out, *rates]
        return out, _with(new_state, input=v_in, output=v_out), rates


class MLPBlock(nn.Module):
    """norm, neuron, MLP; a rate code, if the layer has one."""

    def __init__(self, config: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()
        neurons = config.neurons_of(layer)
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.prediction = Prediction(config.hidden_size) if layer.predictive else None
        self.input_neuron = make_neuron(neurons.mlp_input, config.hidden_size, config.num_steps)
        self.mlp = MLPS[layer.mlp](config, self.input_neuron, neurons.mlp_hidden)
        self.rate_code = make_rate_code(layer.mlp_rate, config.hidden_size)

    def forward(
        self, x: Tensor, view: TokenView, state: LayerState | None
    ) -> tuple[Tensor, LayerState, list[Tensor]]:
        membranes = state or {}
        norm: nn.Module | None = self.norm
        last = None
        if self.prediction is not None:
            x, last = self.prediction(self.norm(x), membranes.get("previous"), view.starts)
            norm = None
        y, v_in, rate_in = self.input_neuron(x, membranes.get("up"), view.starts, norm)
        out, v_hidden, rate_hidden = self.mlp(y, membranes.get("down"), view.starts)
        out, rates = self.rate_code(out)
        new_state = _with({}, up=v_in, down=v_hidden, previous=None if state is None else last)
        return out, new_state, [rate_in, rate_hidden, *rates]


class DecoderLayer(GradientCheckpointingLayer):
    """One mixer block and, unless the layer says `mlp: none`, one MLP block."""

    def __init__(self, config: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()
        blocks: list[nn.Module] = [MixerBlock(config, layer)]
        if layer.mlp != "none":
            blocks.append(MLPBlock(config, layer))
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self, x: Tensor, view: TokenView, state: LayerState | None = None
    ) -> tuple[Tensor, LayerState, Tensor]:
        """`x`, the new state, and the rates of the layer's neurons `[n]`.

        The rates are one tensor, because reentrant gradient checkpointing loses the gradient of
        tensors inside lists.
        """
        new_state: LayerState = {}
        rates: list[Tensor] = []
        for block in self.blocks:
            out, block_state, block_rates = block(x, view, state)
            x = x + out
            new_state |= block_state
            rates += block_rates
        return x, new_state, torch.stack(rates)


class Decoder(nn.Module):
    """Everything below the head's weight matrix.

    Args:
        config: the architecture.

    Call:
        input_ids `[B, L]` (or inputs_embeds `[B, L, D]`), optional position_ids, attention_mask and
        a `DecoderState` that is advanced in place. Returns what the head neuron emits `[B, L, D]`
        (so that logits are the head's plain product of it) and the channel rate of every neuron in
        order of computation `[N]`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in config.layer_list)
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.head_neuron = make_neuron(config.neurons.head, config.hidden_size, config.num_steps)
        turning = [layer for layer in config.layer_list if layer.mixer == "attention"]
        self.rope_thetas = sorted({layer.rope_theta or config.rope_theta for layer in turning})

    def forward(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        state: DecoderState | None = None,
    ) -> tuple[Tensor, Tensor]:
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        tokens = view_tokens(x.shape[:2], x.device, position_ids, attention_mask, state)
        y, new_states, rates = self.run(x, tokens, None if state is None else state.layers)
        if state is not None:
            state.layers = new_states
            state.advance(tokens.positions, tokens.segments, tokens.plain)
        return y, rates

    def run(
        self, x: Tensor, tokens: TokenView, states: list[LayerState] | None
    ) -> tuple[Tensor, list[LayerState], Tensor]:
        """Embedded tokens `[B, L, D]` through all layers, given where they stand.

        Returns what the head neuron emits, the new states of the layers and of the head, and the
        channel rates.
        """
        T = self.config.num_steps
        view = tokens.repeat(T)
        x = x.repeat_interleave(T, dim=0) if T > 1 else x  # a static input for all steps
        positions = view.positions[:1] if view.plain else view.positions  # if plain, all the same
        for theta in self.rope_thetas:
            view.rotations[theta] = rotation(positions, theta, self.config.head_dim // 2)
        before: list[LayerState | None] = [None] * (len(self.layers) + 1)
        if states is not None:
            before = [*states]
        rates: list[Tensor] = []
        after: list[LayerState] = []
        for layer, state in zip(self.layers, before, strict=False):
            x, new_state, layer_rates = layer(x, view, state)
            rates.append(layer_rates)
            after.append(new_state)
        head = before[-1] or {}
        y, membrane, rate = self.head_neuron(x, head.get("head"), view.starts, self.norm)
        if T > 1:
            y = y.unflatten(0, (-1, T)).mean(1)  # rate code: the head reads the mean of its steps
        return y, [*after, _with({}, head=membrane)], torch.cat([*rates, rate[None]])


def _with(state: LayerState, **membranes: Tensor | None) -> LayerState:
    """The state with those membranes that exist."""
    return {**state, **{k: v for k, v in membranes.items() if v is not None}}
