"""Numbers as spikes and back: rate, latency and population codes.

Spikes are 0 and 1, `[T, ...]` for values `[...]`. Each decoder undoes its encoder up to the error
that its docstring states; none has parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeloom.errors import ConfigError


def encode_rate(x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
    """A value in [0, 1] is the share of steps with a spike, `[T, ...]`.

    Without a generator the spikes are spread evenly: spike t stands where the running sum of x
    passes a whole number, `floor(t x + 1/2) > floor((t - 1) x + 1/2)`. With one, each step is drawn
    by itself with probability x.

    Raises:
        ConfigError: values outside [0, 1], or less than one step.
    """
    _check(x, steps)
    if generator is not None:
        drawn = torch.rand(steps, *x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return (drawn < x).to(x.dtype)
    t = torch.arange(steps + 1, dtype=x.dtype, device=x.device).view(-1, *[1] * x.ndim)
    return torch.floor(t * x + 0.5).diff(dim=0)


def decode_rate(spikes: Tensor) -> Tensor:
    """The share of steps with a spike.

    Within 1 / (2 T) of what was encoded evenly; drawn spikes have standard deviation
    sqrt(x (1 - x) / T).
    """
    return spikes.mean(0)


def encode_latency(x: Tensor, steps: int) -> Tensor:
    """Time to first spike: the larger, the earlier; one spike at `round((1 - x) T)`, none for 0.

    Raises:
        ConfigError: values outside [0, 1], or less than one step.
    """
    _check(x, steps)
    when = torch.round((1 - x) * steps)
    t = torch.arange(steps, dtype=x.dtype, device=x.device).view(-1, *[1] * x.ndim)
    return (t == when).to(x.dtype)


def decode_latency(spikes: Tensor) -> Tensor:
    """`1 - t / T` of the first spike at t, 0 without one; within 1 / (2 T) of what was encoded."""
    silent = spikes.cumsum(0) == 0
    return 1 - silent.to(spikes.dtype).sum(0) / len(spikes)


def centres(neurons: int, low: float, high: float) -> Tensor:
    """Preferred values of a population, `[N]`: evenly spaced, two of them beyond either end.

    Raises:
        ConfigError: fewer than 6 neurons, or an empty range.
    """
    if neurons < 6 or not low < high:
        raise ConfigError(
            f"{neurons} neurons for [{low}, {high}]: expected 6 or more and low < high"
        )
    spacing = (high - low) / (neurons - 5)
    return torch.linspace(low - 2 * spacing, high + 2 * spacing, neurons)


def encode_population(
    x: Tensor,
    steps: int,
    neurons: int,
    low: float = 0.0,
    high: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Gaussian tuning curves: neuron n fires at the rate `exp(-(x - c[n])^2 / (2 d^2))`.

    Args:
        x: values in [low, high], `[...]`.
        steps: T.
        neurons: N; `c` are their `centres`, `d` the distance between two of them.
        low, high: the range.
        generator: as in `encode_rate`.

    Returns:
        spikes `[T, ..., N]`.

    Raises:
        ConfigError: values outside the range, too few neurons or steps.
    """
    c = centres(neurons, low, high).to(x)
    _check((x - low) / (high - low), steps)
    rates = torch.exp(-(((x[..., None] - c) / (c[1] - c[0])) ** 2) / 2)
    return encode_rate(rates, steps, generator)


def decode_population(spikes: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """The mean of the preferred values, weighed by spikes, `[...]` from `[T, ..., N]`.

    Within a fifth of the distance between two centres of what was encoded in 16 even steps or more.
    """
    counts = spikes.sum(0)
    c = centres(counts.shape[-1], low, high).to(counts)
    return (counts * c).sum(-1) / counts.sum(-1).clamp(min=1)


def _check(x: Tensor, steps: int) -> None:
    if steps < 1:
        raise ConfigError(f"{steps} steps: expected 1 or more")
    if x.numel() and not (x.min() >= 0 and x.max() <= 1):
        raise ConfigError(
            f"values from {float(x.min()):g} to {float(x.max()):g} are outside of the code's range"
        )
