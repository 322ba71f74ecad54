"""What sets a LIF neuron's excitability besides its weights: diversity, homeostasis, environment.

    current[i] = gain[i] * input[i] - h[i],    gain[i] = d[i] * (1 + stress_gain * stress)

d is fixed, drawn once from a LogNormal of mean 1. h follows the neuron's own firing (training
only): one that fires more than its target is held back, one that fires less is driven. `stress` is
one number for the whole model, from the loss. All three are buffers: saved with the weights,
constant outside training.

For a neuron without memory that is a threshold higher by h. A factor on the threshold instead was
tried and does not do: where inputs inhibit on average, no factor makes a neuron fire, and of 512 in
a recurrent layer 159 to 296 ended dead.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeloom.config import NeuronConfig


class Environment(nn.Module):
    """The stress that all neurons of a model share, in (-1, 1).

        fast += (loss - fast) / 10        slow += (loss - slow) / 100
        stress = tanh(10 * (fast / slow - 1))

    Above 0 the loss is worse than the model is used to; 0.05 worse is a stress of 0.46.
    """

    fast: Tensor
    slow: Tensor
    stress: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("fast", "slow", "stress"):
            self.register_buffer(name, torch.zeros(()))

    def reset_parameters(self) -> None:
        from transformers import initialization as init

        for buffer in (self.fast, self.slow, self.stress):
            init.zeros_(buffer)

    @torch.no_grad()
    def observe(self, loss: Tensor) -> None:
        """Take note of a loss, a scalar above 0, on the device of the model."""
        first = self.slow == 0
        self.fast.copy_(torch.where(first, loss, self.fast.lerp(loss.to(self.fast), 0.1)))
        self.slow.copy_(torch.where(first, loss, self.slow.lerp(loss.to(self.slow), 0.01)))
        self.stress.copy_(torch.tanh(10.0 * (self.fast / self.slow - 1.0)))


class Modulation(nn.Module):
    """Gain and inhibition of `size` neurons, as far as the config asks for them.

    Args:
        config: of the neurons.
        size: their number D.

    Attributes:
        log_diversity, inhibition: log of d, and h, `[D]`; None where the config has none.
        channel_rate: of the last training forward, `[D]`; not saved.
    """

    log_diversity: Tensor | None
    inhibition: Tensor | None
    channel_rate: Tensor | None

    def __init__(self, config: NeuronConfig, size: int) -> None:
        super().__init__()
        self.config = config
        zeros = torch.zeros
        self.register_buffer("log_diversity", zeros(size) if config.diversity else None)
        self.register_buffer("inhibition", zeros(size) if config.homeostasis else None)
        rate = zeros(size) if config.homeostasis else None
        self.register_buffer("channel_rate", rate, persistent=False)
        self._environment: tuple[Environment, ...] = ()  # a reference, not a submodule

    def live_in(self, environment: Environment) -> None:
        """Take the stress from there; without this there is none."""
        self._environment = (environment,)

    def reset_parameters(self) -> None:
        """Diversity is drawn under the seed of the run; inhibition starts at 0."""
        from transformers import initialization as init

        if self.log_diversity is not None:
            sigma = self.config.diversity
            init.normal_(self.log_diversity, -0.5 * sigma**2, sigma)
        if self.inhibition is not None and self.channel_rate is not None:
            init.zeros_(self.inhibition)
            init.zeros_(self.channel_rate)

    @property
    def gain(self) -> Tensor:
        """`[D]`, or a scalar where neurons do not differ."""
        gain = torch.ones((), device=self._device)
        if self.log_diversity is not None:
            gain = self.log_diversity.exp()
        for environment in self._environment:
            gain = gain * (1.0 + self.config.stress_gain * environment.stress)
        return gain

    def current(self, x: Tensor) -> Tensor:
        """What reaches the membrane of an input `[..., D]`."""
        current = x * self.gain
        return current if self.inhibition is None else current - self.inhibition

    @torch.no_grad()
    def note(self, spikes: Tensor) -> None:
        """Remember how often each neuron fired, `[..., D]`."""
        if self.channel_rate is not None:
            self.channel_rate.copy_(spikes.detach().float().flatten(0, -2).mean(0))

    @torch.no_grad()
    def adapt(self, speed: float = 1.0) -> None:
        """Move each inhibition by `homeostasis` times how far its neuron fired off its target.

        `speed` scales the move. Targets are as diverse as gains: else homeostasis would level what
        diversity spreads.
        """
        if self.inhibition is None or self.channel_rate is None:
            return
        target = torch.full_like(self.channel_rate, self.config.target_rate)
        if self.log_diversity is not None:
            target = target * self.log_diversity.exp()
        self.inhibition += speed * self.config.homeostasis * (self.channel_rate - target)

    @property
    def _device(self) -> torch.device | None:
        return next((buffer.device for buffer in self.buffers()), None)
