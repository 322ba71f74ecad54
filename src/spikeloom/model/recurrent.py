"""The recurrent LIF layer of Real Sam: neurons that hear their own spikes of the token before.

    current   I[t] = fc_in(y[t])                       y: what the input neuron emits
    neuron    v[t] = beta v[t-1] + g (norm(I[t]) + b + W s[t-1]) - h,  s[t] = 1[v[t] >= v_threshold]
    out       x[t] += gate(y[t]) * o(s[t])

In a decoder layer the current is the mixer's part, the neuron stands where every layer has its
output neuron, and W is a product fed by that neuron. The state is membrane and spikes: 2 D numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.config import LayerConfig, ModelConfig, NeuronConfig
from spikeloom.model.products import SpikeLinear
from spikeloom.model.state import LayerState, TokenView
from spikeloom.neurons import LIF, Activation, Neuron, Wire, make_neuron
from spikeloom.ops.lif import dispatch, recurrent


class InputCurrent(nn.Module):
    """The mixer's part: no more than the product `fc_in`, because the neuron behind it mixes."""

    def __init__(self, config: ModelConfig, layer: LayerConfig, neuron: Neuron | Wire) -> None:
        super().__init__()
        self.fc_in = SpikeLinear(neuron, config.hidden_size)

    def forward(
        self, y: Tensor, view: TokenView, state: LayerState | None
    ) -> tuple[Tensor, LayerState, list[Tensor]]:
        return self.fc_in(y), {}, []


class RecurrentLIF(LIF):
    """A LIF neuron per channel and the product of their spikes that reaches them a token later.

    Its state is `[B, 2, D]`: the membrane, and the spikes just sent.
    """

    remembers = True

    def __init__(self, config: NeuronConfig, size: int) -> None:
        super().__init__(config, size)
        self.rec_proj = SpikeLinear(self, size)

    @property
    def recurrent_weight(self) -> Tensor:
        """`[D, D]`, each neuron's gain included."""
        weight = self.rec_proj.weight
        return weight if self.modulation is None else self.modulation.gain[..., None] * weight

    def scan(
        self, x: Tensor, state: Tensor | None, starts: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        with torch.autocast(x.device.type, enabled=False):  # it would round sums of spikes
            s, (v, last) = dispatch.recurrent_lif(
                x,
                self.recurrent_weight,
                None if state is None else unpacked(state),
                beta=self.beta,
                v_threshold=self.config.v_threshold,
                surrogate=self.config.surrogate,
                starts=starts,
            )
        self.note(s)
        return s, packed(v, last), s.float().mean()

    def heard(self, spikes: Tensor) -> Tensor:
        """The current that spikes of the token before bring, `[..., D]` of `[..., D]`."""
        return F.linear(spikes, self.recurrent_weight)


class RecurrentUnit(Wire):
    """The dense twin of `RecurrentLIF`: same products, leak and reset, smooth spikes."""

    def __init__(self, config: NeuronConfig, size: int) -> None:
        super().__init__(size)
        self.config = config
        self.bias = nn.Parameter(torch.empty(size))
        self.raw_beta = nn.Parameter(torch.empty(size))
        self.rec_proj = SpikeLinear(self, size)

    def reset_parameters(self) -> None:
        """A leak of 0.9 where the config has none to start from."""
        from transformers import initialization as init

        beta = torch.full_like(self.bias, self.config.beta or 0.9)
        init.zeros_(self.bias)
        init.copy_(self.raw_beta, torch.logit(beta))

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        starts: Tensor | None = None,
        before: Activation | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        current = (x if before is None else before(x)) + self.bias
        with torch.autocast(x.device.type, enabled=False):  # as in `RecurrentLIF`
            out, (v, last) = recurrent.recurrent_unit(
                current.transpose(0, 1),
                self.rec_proj.weight,
                None if state is None else unpacked(state),
                beta=torch.sigmoid(self.raw_beta),
                v_threshold=self.config.v_threshold,
                surrogate=self.config.surrogate,
                starts=None if starts is None else starts.transpose(0, 1)[..., None],
            )
        rate = torch.ones((), device=x.device)
        return out.transpose(0, 1), packed(v, last), rate


def packed(membrane: Tensor, spikes: Tensor) -> Tensor:
    """The state of a recurrent neuron, `[B, 2, D]`."""
    return torch.stack([membrane, spikes], dim=1)


def unpacked(state: Tensor) -> tuple[Tensor, Tensor]:
    """Membrane and spikes, both `[B, D]`."""
    return state[:, 0], state[:, 1]


class Gate(nn.Module):
    """What multiplies a mixer's output: `sigmoid(raw)` per channel, or a sigmoid of a product."""

    def __init__(self, layer: LayerConfig, neuron: Neuron | Wire, size: int) -> None:
        super().__init__()
        product = layer.gate == "product"
        self.raw = nn.Parameter(torch.empty(size))
        self.gate_proj = SpikeLinear(neuron, size) if product else None

    def reset_parameters(self) -> None:
        """Three quarters open."""
        from transformers import initialization as init

        init.constant_(self.raw, 1.0)

    def forward(self, y: Tensor) -> Tensor:
        """`[D]`, or `[B, L, D]` where what the mixer reads decides."""
        raw = self.raw if self.gate_proj is None else self.raw + self.gate_proj(y)
        return torch.sigmoid(raw)


def make_output_neuron(config: ModelConfig, layer: LayerConfig) -> Neuron | Wire:
    """The neuron before the mixer's output product; in a recurrent layer it does the mixing."""
    neuron = config.neurons_of(layer).mixer_output
    if layer.mixer != "recurrent_lif":
        return make_neuron(neuron, config.hidden_size, config.num_steps)
    kind = RecurrentUnit if neuron.kind == "none" else RecurrentLIF
    return kind(neuron, config.hidden_size)
