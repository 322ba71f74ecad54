"""Graded LIF: few spikes, each with a precise payload."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spikeloom.config import NeuronConfig
from spikeloom.neurons.gain import ContextGain
from spikeloom.neurons.neuron import Activation, Neuron
from spikeloom.ops.lif import dispatch


class GradedLIF(Neuron):
    """Emits `theta * s`, s integer, zero inside the dead zone (`spikeloom.ops.lif.naive`).

    The step theta is learned per channel as its logarithm, so that it stays positive whatever the
    optimizer does; it folds into the columns of the weight matrix behind it.

    Attributes:
        gain: scales what it hears, where the config asks for it; else None.
        dead_zone: that of training, where programs on a GPU read it from a tensor; else None.
    """

    def __init__(self, config: NeuronConfig, size: int, num_steps: int = 1) -> None:
        super().__init__(config, size, num_steps)
        self.log_theta = nn.Parameter(torch.empty(size))
        self.gain = ContextGain(size, config.gain_rank) if config.gain_rank else None
        self.dead_zone: Tensor | None = None

    @property
    def step(self) -> Tensor:
        return self.log_theta.exp()

    def initial_values(self) -> dict[str, float]:
        return {**super().initial_values(), "log_theta": math.log(self.config.theta)}

    @property
    def dense_weights(self) -> int:
        return 0 if self.gain is None else self.gain.weights

    def current(self, x: Tensor, before: Activation | None = None) -> Tensor:
        return super().current(*self._scaled(x, before))

    def fire(self, x: Tensor, before: Activation | None) -> tuple[Tensor, None, Tensor]:
        if self.config.clip_membrane is not None:
            return super().fire(x, before)
        x, before = self._scaled(x, before)
        kind = x.device.type  # in mixed precision, cast once here instead of in every product
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        zone, whole = self.dead_zone if self.training else None, self.config.fire_level
        shape = self._shape(self.fire_level if zone is None else whole)
        emission, rate = dispatch.graded_emission(
            x, self.bias, self.log_theta, before, zone, rate_level=whole, dtype=dtype, **shape
        )
        return emission, None, rate

    def open_dead_zone(self, fire_level: int) -> None:
        super().open_dead_zone(fire_level)
        if dispatch.TRITON and self.bias.is_cuda:
            zone = dispatch.emission.dead_zone(fire_level, self.config.window)
            if self.dead_zone is None:
                self.dead_zone = zone.to(self.bias.device)
            else:  # where compiled code looks
                self.dead_zone.copy_(zone)

    def scan(
        self, x: Tensor, state: Tensor | None, starts: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        theta = self.step
        s, state = dispatch.graded_lif(
            x,
            theta,
            state,
            beta=self.beta,
            v_reset=self.v_reset,
            clip_membrane=self.config.clip_membrane,
            starts=starts,
            keep_state=self.remembers,
            **self._shape(self.fire_level),
        )
        # The rate counts; its gradient is that of the mean payload, on the scale of one spike.
        size, whole = s.abs().float(), self.config.fire_level
        proxy = size.mean() / whole
        return theta * s, state, (size >= whole).float().mean() + proxy - proxy.detach()

    def _scaled(self, x: Tensor, before: Activation | None) -> tuple[Tensor, Activation | None]:
        """Input and what stands before the neuron, with the gain taken in, if there is one."""
        if self.gain is None:
            return x, before
        return self.gain(x if before is None else before(x)), None

    def _shape(self, fire_level: int) -> dict:
        c = self.config
        return {
            "levels": c.levels,
            "fire_level": fire_level,
            "signed": c.signed,
            "window": c.window,
        }
