"""Two-stage attention: a spiking neuron decides which tokens enter dense attention at all.

    u[j] = w . y[j]                                 salience of token j, a spike-fed product
    g[j] = LIF(u)[j], 0 or 1                        along the tokens: its membrane adds up salience
    out[i] = sum_j a[i,j] g[j] v[j] / (sum_j a[i,j] g[j] + e)

with a the softmax over all j that i may see, which makes out the softmax over the tokens kept.
Where none was kept out is 0, and the residual stream passes on. In this form gradients reach w
through every g, also of tokens left out. A decoder needs keys and values of kept tokens only: the
kept share is the neuron's firing rate, and the effective cost of attention is that share of the
full one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeloom.config import NeuronConfig
from spikeloom.model.products import SpikeLinear
from spikeloom.model.state import LayerState, TokenView
from spikeloom.neurons import Neuron, Wire, make_neuron

SMALLEST = 1e-6
"""e, the share of attention below which what was kept fades out."""


class Salience(nn.Module):
    """Gates on values, as one more channel beside them.

    Args:
        config: the deciding neuron.
        source: the neuron that feeds the mixer's products.
    """

    def __init__(self, config: NeuronConfig, source: Neuron | Wire) -> None:
        super().__init__()
        self.proj = SpikeLinear(source, 1)
        self.neuron = make_neuron(config, 1)

    def forward(
        self, y: Tensor, v: Tensor, state: LayerState | None, view: TokenView
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """`[g v, g]` `[B, H, L, K + 1]`, the membrane, and the share of tokens kept."""
        membrane = state.get("salience") if state else None
        emission, membrane, rate = self.neuron(self.proj(y), membrane, view.starts)
        gate = emission.to(v.dtype)[:, None].expand(-1, v.shape[1], -1, -1)
        return torch.cat([v * gate, gate], dim=-1), membrane, [rate]

    @staticmethod
    def divide(mixed: Tensor) -> Tensor:
        """The mean over kept tokens `[B, H, L, K]` from sums `[B, H, L, K + 1]`."""
        return mixed[..., :-1] / (mixed[..., -1:] + SMALLEST)
