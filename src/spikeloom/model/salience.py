"""Two-stage attention: a spiking neuron decides which tokens enter dense attention at all.

    u[j] = w . y[j]                         salience of token j, a spike-fed product
    g[j] = LIF(u)[j], 0 or 1                along the tokens: its membrane adds up salience
    out[i] = softmax attention of i over itself and the tokens j before it with g[j] = 1

What is left out costs no score and no value: the kept share is the neuron's firing rate, and the
effective cost of attention is that share of the full one. The choice itself has no slope; gradients
reach w straight through, as if g[j] were a factor on the value v[j] wherever j is read (each token
reads itself, so that those left out are taught, too). The exact slope, of a softmax whose sums are
weighed by g, was tried: where little was kept it divides by next to nothing, and learns nothing.
"""

from __future__ import annotations

from torch import Tensor, nn

from spikeloom.config import NeuronConfig
from spikeloom.model.products import SpikeLinear
from spikeloom.model.state import LayerState, TokenView
from spikeloom.neurons import Neuron, Wire, make_neuron


class Salience(nn.Module):
    """Chooses tokens, and lets values carry the gradient of the choice.

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
    ) -> tuple[Tensor, Tensor, Tensor | None, list[Tensor]]:
        """Values `[B, H, L, K]`, tokens kept `[B, L]`, the membrane, and the share of them."""
        membrane = state.get("salience") if state else None
        emission, membrane, rate = self.neuron(self.proj(y), membrane, view.starts)
        gate = emission[..., 0].to(v.dtype)
        factor = 1 + gate - gate.detach()
        return v * factor[:, None, :, None], gate.detach() > 0, membrane, [rate]
