"""Sliding PSN: a binary neuron without reset, so that all tokens are computed at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeloom.config import NeuronConfig
from spikeloom.neurons.neuron import Neuron
from spikeloom.ops.psn.parallel import sliding_membrane
from spikeloom.ops.surrogate import heaviside


class SlidingPSN(Neuron):
    """Binary spikes of unit size on a learned mean of the last k inputs (`spikeloom.ops.psn`).

    Its state is `[B, k - 1, D]`: the inputs of the tokens before.

    Attributes:
        taps: weights of this step and those before it, `[k]`, shared by all channels.
    """

    def __init__(self, config: NeuronConfig, size: int, num_steps: int = 1) -> None:
        super().__init__(config, size, num_steps)
        self.taps = nn.Parameter(torch.empty(config.taps))

    @property
    def step(self) -> Tensor:
        return torch.ones_like(self.bias)

    def reset_parameters(self) -> None:
        """Taps of 1, 1/2, 1/4, ...: at the start it is an LIF of beta 0.5 that is cut off."""
        from transformers import initialization as init

        super().reset_parameters()
        init.copy_(self.taps, 0.5 ** torch.arange(len(self.taps), dtype=torch.float32))

    def membrane(
        self, x: Tensor, state: Tensor | None, starts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """h of all steps, `[S, ..., D]`, and the new state."""
        before = None if state is None else state.transpose(0, 1)
        h, last = sliding_membrane(x, self.taps, before, starts)
        return h, last.transpose(0, 1)

    def scan(
        self, x: Tensor, state: Tensor | None, starts: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        h, state = self.membrane(x, state, starts)
        s = heaviside(h - self.config.v_threshold, self.config.surrogate)
        return s, state, s.float().mean()
