"""MLPs: two products and the nonlinearity between them; neurons stand before both products."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.config import ModelConfig, NeuronConfig
from spikeloom.model.products import SpikeLinear
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
        self, y: Tensor, state: Tensor | None, starts: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        hidden, state, rate = self.hidden_neuron(self.widen(y), state, starts, self.activation)
        return self.down_proj(hidden), state, rate


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


MLPS: dict[str, type[SquaredReluMLP]] = {
    "spiking": SpikingMLP,
    "relu2": SquaredReluMLP,
    "swiglu": SwiGLU,
}
