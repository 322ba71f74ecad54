"""A rate code behind a block's output product: Pulse's neuron, after the weights instead of before.

For what the product gives, `y` `[B, L, D]`, token by token:

    m = mean over channels of |y|                   the size of the input, `[B, L, 1]`
    e[t] = neuron(y / m) for t = 1 ... steps        a static input, from a membrane at rest
    r = mean over t of e[t]                         the firing rate (signed for a signed neuron)
    out = r * m * scale                             scale learned per channel, from 1

Dividing by m puts every token at the same distance from the threshold, and multiplying by it gives
the residual stream its size back. Nothing is remembered from token to token. The products before it
stay dense: such a model spikes, but skips no weight.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeloom.config import RateCodeConfig
from spikeloom.neurons import Neuron, make_neuron

SMALLEST = 1e-6
"""Of m: a silent block stays silent."""


class RateCode(nn.Module):
    """`y` to `rate * size * scale` (the module's equations).

    Args:
        config: the neuron and its number of steps.
        size: channels D.
    """

    def __init__(self, config: RateCodeConfig, size: int) -> None:
        super().__init__()
        self.steps = config.steps
        neuron = make_neuron(config.neuron, size, config.steps)
        assert isinstance(neuron, Neuron)
        self.neuron = neuron
        self.scale = nn.Parameter(torch.empty(size))

    def reset_parameters(self) -> None:
        from transformers import initialization as init

        init.ones_(self.scale)

    def forward(self, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The coded `y`, `[B, L, D]`, and the share of channels and steps that fired."""
        m = y.abs().mean(-1, keepdim=True).clamp(min=SMALLEST)
        emission, _, fired = self.neuron((y / m).repeat_interleave(self.steps, dim=0))
        rate = emission.unflatten(0, (-1, self.steps)).mean(1)
        return rate * m * self.scale, [fired]


class Uncoded(nn.Module):
    """No rate code: values go into the residual stream as they are."""

    def forward(self, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        return y, []


def make_rate_code(config: RateCodeConfig | None, size: int) -> RateCode | Uncoded:
    """The module that a layer asks for."""
    return Uncoded() if config is None else RateCode(config, size)
