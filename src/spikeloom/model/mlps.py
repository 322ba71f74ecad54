"""MLPs: two products and the nonlinearity between them; neurons stand before both products.

An MLP takes what the input neuron emits, `y` `[B, L, D]`, and returns what goes into the residual
stream, its new state, and the rates of neurons and wires of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.config import ModelConfig, NeuronConfig
from spikeloom.model.products import SpikeLinear
from spikeloom.model.shift import TokenShift, one_back
from spikeloom.model.state import LayerState
from spikeloom.neurons import Activation, Neuron, Wire, make_neuron
from spikeloom.ops.activation import squared_relu


class SquaredReluMLP(nn.Module):
    """`down(neuron(relu(up(y))^2))` (So et al. 2021): few hidden channels are far from zero."""

    gated = False
    activation: Activation | None = staticmethod(squared_relu)

    def __init__(self, config: ModelConfig, neuron: Neuron | Wire, hidden: NeuronConfig) -> None:
        super().__init__()
        self.up_proj = SpikeLinear(neuron, config.intermediate_size)
        self.gate_proj = SpikeLinear(neuron, config.intermediate_size) if self.gated else None
        self.hidden_neuron = make_neuron(hidden, config.intermediate_size, config.num_steps)
        self.down_proj = SpikeLinear(self.hidden_neuron, config.hidden_size, into_residual=True)

    def widen(self, y: Tensor) -> Tensor:
        """What the activation takes, `[B, L, F]`, from emissions `[B, L, D]`."""
        return self.up_proj(y)

    def forward(
        self, y: Tensor, state: LayerState | None, starts: Tensor | None
    ) -> tuple[Tensor, LayerState, list[Tensor]]:
        membrane = (state or {}).get("down")
        hidden, membrane, rate = self.hidden_neuron(
            self.widen(y), membrane, starts, self.activation
        )
        new_state = {} if membrane is None else {"down": membrane}
        return self.down_proj(hidden), new_state, [rate]


class SpikingMLP(SquaredReluMLP):
    """`down(neuron(up(y)))`: the neuron is the only nonlinearity."""

    activation = None


class SwiGLU(SquaredReluMLP):
    """`down(neuron(silu(gate(y)) * up(y)))` (Shazeer 2020)."""

    gated = True
    activation = None

    def widen(self, y: Tensor) -> Tensor:
        assert self.gate_proj is not None
        return F.silu(self.gate_proj(y)) * self.up_proj(y)


class ChannelMixing(SquaredReluMLP):
    """RWKV-4's MLP: `sigmoid(r_proj(shift(y))) * down(neuron(relu(up(shift(y)))^2))`.

    `shift` mixes a token with the one before it (`model.shift`; Peng et al. 2023).
    """

    def __init__(self, config: ModelConfig, neuron: Neuron | Wire, hidden: NeuronConfig) -> None:
        super().__init__(config, neuron, hidden)
        self.up_shift, self.r_shift = (TokenShift(config.hidden_size) for _ in range(2))
        self.up_proj.fed_by(self.up_shift)
        self.r_proj = SpikeLinear(self.r_shift, config.hidden_size)

    def forward(
        self, y: Tensor, state: LayerState | None, starts: Tensor | None
    ) -> tuple[Tensor, LayerState, list[Tensor]]:
        before = one_back(y, (state or {}).get("mlp_shifted"), starts)
        (y_up, _, rate_up), (y_r, _, rate_r) = (
            shift(y, before) for shift in (self.up_shift, self.r_shift)
        )
        out, new_state, rates = super().forward(y_up, state, starts)
        new_state |= {} if state is None else {"mlp_shifted": y[:, -1]}
        return torch.sigmoid(self.r_proj(y_r)) * out, new_state, [*rates, rate_up, rate_r]


MLPS: dict[str, type[SquaredReluMLP]] = {
    "spiking": SpikingMLP,
    "relu2": SquaredReluMLP,
    "swiglu": SwiGLU,
    "rwkv": ChannelMixing,
}
