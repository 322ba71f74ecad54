"""The decoder: embedding, layers as the config lists them, head neuron.

    x = embedding[tokens]
    per layer:  x = x + o(neuron(norm(mixer(neuron(norm(x))))))
                x = x + down(neuron(activate(up(neuron(norm(x))))))
    logits = head(neuron(norm(x)))

A layer may put a rate code (`model.rate_code`) or a neuron along the tokens (SpikeGPT's) behind o
and down, and gate what its mixer adds (`model.recurrent`); a model with an encoder has it before
the first layer, and a readout before the head (`model.embedding`). The residual stream x is
continuous; every weight product reads what a neuron emits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from spikeloom.config import LayerConfig, ModelConfig
from spikeloom.model.embedding import Encoder, Readout
from spikeloom.model.mixers import MIXERS
from spikeloom.model.mlps import MLPS
from spikeloom.model.norm import make_norm
from spikeloom.model.prediction import Prediction
from spikeloom.model.products import SpikeLinear
from spikeloom.model.rate_code import make_rate_code
from spikeloom.model.recurrent import Gate, make_output_neuron
from spikeloom.model.rotary import rotation
from spikeloom.model.state import DecoderState, LayerState, TokenView, view_tokens
from spikeloom.neurons import Environment, Modulation, Neuron, Wire, make_neuron


class MixerBlock(nn.Module):
    """norm, neuron, mixer, norm, neuron, output product; what stands behind it, if there is any."""

    def __init__(self, config: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()
        size, T, neurons = config.hidden_size, config.num_steps, config.neurons_of(layer)
        self.norm = make_norm(config)
        self.input_neuron = make_neuron(neurons.mixer_input, size, T)
        self.mixer = MIXERS[layer.mixer](config, layer, self.input_neuron)
        self.output_norm = make_norm(config) if config.output_norm else nn.Identity()
        self.output_neuron = make_output_neuron(config, layer)
        behind = layer.mixer_spikes
        self.o_proj = SpikeLinear(self.output_neuron, size, into_residual=behind is None)
        self.rate_code = make_rate_code(layer.mixer_rate, size)
        self.spikes = None if behind is None else make_neuron(behind, size)
        self.gate = None if layer.gate == "none" else Gate(layer, self.input_neuron, size)

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
        out, v_spikes, fired = _spiked(self.spikes, out, membranes.get("mixer_spikes"), view)
        out = out if self.gate is None else self.gate(y) * out
        rates = [rate_in, *rates_within, rate_out, *rates, *fired]
        return out, _with(new_state, input=v_in, output=v_out, mixer_spikes=v_spikes), rates


class MLPBlock(nn.Module):
    """norm, neuron, MLP; what stands behind it, if there is any."""

    def __init__(self, config: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()
        neurons = config.neurons_of(layer)
        self.norm = make_norm(config)
        self.prediction = Prediction(config.hidden_size) if layer.predictive else None
        self.input_neuron = make_neuron(neurons.mlp_input, config.hidden_size, config.num_steps)
        self.mlp = MLPS[layer.mlp](config, self.input_neuron, neurons.mlp_hidden)
        behind = layer.mlp_spikes
        self.mlp.down_proj.into_residual = behind is None
        self.rate_code = make_rate_code(layer.mlp_rate, config.hidden_size)
        self.spikes = None if behind is None else make_neuron(behind, config.hidden_size)

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
        out, new_state, rates_within = self.mlp(y, state, view.starts)
        out, rates = self.rate_code(out)
        out, v_spikes, fired = _spiked(self.spikes, out, membranes.get("mlp_spikes"), view)
        last = None if state is None else last
        new_state = _with(new_state, up=v_in, previous=last, mlp_spikes=v_spikes)
        return out, new_state, [rate_in, *rates_within, *rates, *fired]


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
        input_ids `[B, L]` (or inputs_embeds `[B, L, E]`), optional position_ids, attention_mask and
        a `DecoderState` that is advanced in place. Returns what the head neuron emits `[B, L, E]`
        (so that logits are the head's plain product of it) and the channel rate of every neuron in
        order of computation `[N]`. E is the width of the embedding: D, unless there is an encoder.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.encoder_size)
        encoded = config.embedding_size is not None
        self.encoder = Encoder(config) if encoded else None
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in config.layer_list)
        self.norm = make_norm(config)
        self.readout = Readout(config) if encoded else None
        self.head_neuron = make_neuron(config.neurons.head, config.encoder_size, config.num_steps)
        self.environment = self._shared_environment()
        turning = [layer for layer in config.layer_list if layer.mixer == "attention"]
        self.rope_thetas = sorted({layer.rope_theta or config.rope_theta for layer in turning})

    def _shared_environment(self) -> Environment | None:
        """The one environment of all neurons that feel stress; None if none does."""
        feel = [m for m in self.modules() if isinstance(m, Modulation) and m.config.stress_gain]
        if not feel:
            return None
        environment = Environment()
        for modulation in feel:
            modulation.live_in(environment)
        return environment

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
        """Embedded tokens `[B, L, E]` through all layers, given where they stand.

        Returns what the head neuron emits, the new states of the layers and of what stands outside
        them, and the channel rates.
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
        ends = before[-1] or {}
        kept: dict[str, Tensor | None] = {}
        rates: list[Tensor] = []
        if self.encoder is not None:
            x, kept["encoder"], rate = self.encoder(x, ends.get("encoder"), view.starts)
            rates.append(rate[None])
        after: list[LayerState] = []
        for layer, state in zip(self.layers, before, strict=False):
            x, new_state, layer_rates = layer(x, view, state)
            rates.append(layer_rates)
            after.append(new_state)
        norm: nn.Module | None = self.norm
        if self.readout is not None:
            x, kept["readout"], rate = self.readout(x, ends.get("readout"), view.starts, norm)
            rates.append(rate[None])
            norm = None
        y, kept["head"], rate = self.head_neuron(x, ends.get("head"), view.starts, norm)
        if T > 1:
            y = y.unflatten(0, (-1, T)).mean(1)  # rate code: the head reads the mean of its steps
        return y, [*after, _with({}, **kept)], torch.cat([*rates, rate[None]])


def _spiked(
    neuron: Neuron | Wire | None, x: Tensor, membrane: Tensor | None, view: TokenView
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """What a neuron behind a block makes of its output, its membrane, and the share that fired."""
    if neuron is None:
        return x, None, []
    spikes, membrane, rate = neuron(x, membrane, view.starts)
    return spikes, membrane, [rate]


def _with(state: LayerState, **membranes: Tensor | None) -> LayerState:
    """The state with those membranes that exist."""
    return {**state, **{k: v for k, v in membranes.items() if v is not None}}
