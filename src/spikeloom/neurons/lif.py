"""Leaky integrate-and-fire: spikes of 0 and 1, a surrogate slope for the gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeloom.config import NeuronConfig
from spikeloom.neurons.modulation import Modulation
from spikeloom.neurons.neuron import Activation, Neuron
from spikeloom.ops.lif import dispatch


class LIF(Neuron):
    """Binary spikes of unit size (`spikeloom.ops.lif.naive.lif`).

    Attributes:
        modulation: what sets each neuron's gain and inhibition, or None.
    """

    def __init__(self, config: NeuronConfig, size: int, num_steps: int = 1) -> None:
        super().__init__(config, size, num_steps)
        self.modulation = Modulation(config, size) if config.modulations else None

    @property
    def step(self) -> Tensor:
        return torch.ones_like(self.bias)

    def current(self, x: Tensor, before: Activation | None = None) -> Tensor:
        current = super().current(x, before)
        return current if self.modulation is None else self.modulation.current(current)

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
        self.note(s)
        return s, state, s.float().mean()

    def note(self, spikes: Tensor) -> None:
        """Let homeostasis see the spikes of a training forward."""
        if self.training and self.modulation is not None:
            self.modulation.note(spikes)
