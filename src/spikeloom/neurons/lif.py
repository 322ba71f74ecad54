"""Leaky integrate-and-fire: spikes of 0 and 1, a surrogate slope for the gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeloom.neurons.neuron import Neuron
from spikeloom.ops.lif import dispatch


class LIF(Neuron):
    """Binary spikes of unit size (`spikeloom.ops.lif.naive.lif`)."""

    @property
    def step(self) -> Tensor:
        return torch.ones_like(self.bias)

    def scan(
        self, x: Tensor, state: Tensor | None, starts: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        s, state = dispatch.lif(
            x,
            state,
            beta=self.beta,
            v_threshold=self.config.v_threshold,
            v_reset=self.v_reset,
            surrogate=self.config.surrogate,
            clip_membrane=self.config.clip_membrane,
            starts=starts,
            keep_state=self.remembers,
        )
        return s, state, s.float().mean()
