"""What all neurons share: the clock, the leak, and the way to tell payloads from emissions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from spikeloom.config import NeuronConfig

Activation = Callable[[Tensor], Tensor]
"""What stands right before a neuron: an RMSNorm, a squared ReLU."""


class Neuron(nn.Module):
    """Base of the spiking neurons.

    Args:
        config: which neuron.
        size: number of channels D.
        num_steps: T; 1 is the token clock (steps are tokens), more is the step clock.

    Attributes:
        bias: constant input current per channel, `[D]`.
        training_fire_level: the fire level in training mode; `open_dead_zone` changes it.
        raw_beta: logit of the leak per channel `[D]`, where the leak is learned.
    """

    spikes = True

    def __init__(self, config: NeuronConfig, size: int, num_steps: int = 1) -> None:
        super().__init__()
        self.config = config
        self.size = size
        self.num_steps = num_steps
        self.training_fire_level = config.fire_level
        self.bias = nn.Parameter(torch.empty(size))
        self.raw_beta = nn.Parameter(torch.empty(size)) if config.learn_beta else None

    @property
    def step(self) -> Tensor:
        """Payload step theta, `[D]`."""
        raise NotImplementedError

    @property
    def beta(self) -> float | Tensor:
        """Share of the membrane kept from step to step, a number or `[D]`."""
        return self.config.beta if self.raw_beta is None else torch.sigmoid(self.raw_beta)

    @property
    def levels(self) -> int:
        return self.config.levels if self.config.kind == "graded" else 1

    @property
    def fire_level(self) -> int:
        """The smallest payload that is sent."""
        return self.training_fire_level if self.training else self.config.fire_level

    def open_dead_zone(self, fire_level: int) -> None:
        """In training mode, fire from this payload on (`spikeloom.training.dead_zone`).

        The firing rate goes on counting what would fire with the whole dead zone.
        """
        self.training_fire_level = fire_level

    @property
    def dense_weights(self) -> int:
        """How many weights of its own it reads for every token, whatever fires."""
        return 0

    @property
    def signed(self) -> bool:
        return self.config.signed and self.config.kind == "graded"

    @property
    def remembers(self) -> bool:
        """Whether a membrane passes from token to token (never on the step clock)."""
        return self.num_steps == 1 and not self.config.memoryless

    def payloads(self, emission: Tensor) -> Tensor:
        """The integers `s` behind an emission `theta * s`, same shape."""
        return torch.round(emission / self.step)

    def initial_values(self) -> dict[str, float]:
        """Start value of each parameter, by name."""
        values = {"bias": 0.0}
        if self.raw_beta is not None:
            values["raw_beta"] = math.log(self.config.beta / (1 - self.config.beta))
        return values

    def reset_parameters(self) -> None:
        from transformers import initialization as init

        for name, value in self.initial_values().items():
            init.constant_(getattr(self, name), value)

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        starts: Tensor | None = None,
        before: Activation | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        if self.num_steps == 1 and not self.remembers:
            return self.fire(x, before)
        x = self.current(x, before)
        if self.num_steps > 1:
            steps = x.unflatten(0, (-1, self.num_steps)).transpose(0, 1)  # [T, B, L, D]
            emission, _, rate = self.scan(steps, None, None)
            return emission.transpose(0, 1).flatten(0, 1), None, rate
        first = None if starts is None else starts.transpose(0, 1)[..., None]
        emission, state, rate = self.scan(x.transpose(0, 1), state, first)
        return emission.transpose(0, 1), state, rate

    def current(self, x: Tensor, before: Activation | None = None) -> Tensor:
        """What flows into the membrane."""
        return (x if before is None else before(x)) + self.bias

    def fire(self, x: Tensor, before: Activation | None) -> tuple[Tensor, None, Tensor]:
        """One step without memory; what stands before the neuron, and the bias, included."""
        emission, _, rate = self.scan(self.current(x, before)[None], None, None)
        return emission[0], None, rate

    def scan(
        self, x: Tensor, state: Tensor | None, starts: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Steps along the leading axis: emissions, last membrane (where it passes on), rate."""
        raise NotImplementedError

    @property
    def v_reset(self) -> float | None:
        return self.config.v_reset if self.config.reset == "hard" else None


class Wire(nn.Module):
    """No neuron: the product behind it is dense."""

    spikes = False
    remembers = False
    dense_weights = 0

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        starts: Tensor | None = None,
        before: Activation | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        return x if before is None else before(x), None, torch.ones((), device=x.device)


def make_neuron(config: NeuronConfig, size: int, num_steps: int = 1) -> Neuron | Wire:
    """The module that `config.kind` asks for, with `size` channels."""
    from spikeloom.neurons.graded import GradedLIF
    from spikeloom.neurons.lif import LIF
    from spikeloom.neurons.psn import SlidingPSN

    if config.kind == "none":
        return Wire(size)
    kinds: dict[str, type[Neuron]] = {"graded": GradedLIF, "lif": LIF, "psn": SlidingPSN}
    return kinds[config.kind](config, size, num_steps)
