"""Spike-timing-dependent plasticity: weights that learn from the order of spikes, without a loss.

Pair-based, all pairs, with soft bounds (Song, Miller and Abbott 2000; van Rossum et al. 2000). Per
step, with pre-spikes `p` `[N]`, post-spikes `q` `[M]`, weights `w` `[M, N]` in [0, w_max]:

    a = decay_pre * a + p                                   trace of the inputs
    w += rate_up   * (w_max - w) * q[:, None] * a[None]     an input that came before: stronger
    w -= rate_down * w           * b[:, None] * p[None]     one that comes after: weaker
    b = decay_post * b + q                                  trace of the outputs

The input of the very step in which a neuron fires counts as before: it made it fire. A decay is
`exp(-step / tau)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spikeloom.ops.lif.naive import lif
from spikeloom.strict import require, require_each


@dataclass(frozen=True)
class STDP:
    """The rule's constants.

    Raises:
        ConfigError: an impossible value, by name.
    """

    rate_up: float = 0.02
    rate_down: float = 0.03
    decay_pre: float = 0.8
    decay_post: float = 0.8
    w_max: float = 1.0

    def __post_init__(self) -> None:
        require_each(self, "rate_up rate_down", lambda v: 0 <= v <= 1, "a rate in [0, 1]")
        require_each(self, "decay_pre decay_post", lambda v: 0 <= v < 1, "a decay in [0, 1)")
        require(self.w_max > 0, "w_max", self.w_max, "a positive weight")


@dataclass(frozen=True)
class Traces:
    """`a` `[N]` and `b` `[M]` of the module's equations; goes in and comes out."""

    pre: Tensor
    post: Tensor

    @classmethod
    def silent(cls, weights: Tensor) -> Traces:
        """Before any spike, for weights `[M, N]`."""
        return cls(weights.new_zeros(weights.shape[1]), weights.new_zeros(weights.shape[0]))


def stdp_step(
    weights: Tensor, traces: Traces, pre: Tensor, post: Tensor, rule: STDP
) -> tuple[Tensor, Traces]:
    """One step of the module's equations: new weights `[M, N]` and traces.

    Args:
        weights: `[M, N]`, in [0, w_max].
        traces: of the steps before.
        pre, post: spikes of this step, `[N]` and `[M]`.
        rule: constants.
    """
    a = rule.decay_pre * traces.pre + pre
    up = rule.rate_up * (rule.w_max - weights) * torch.outer(post, a)
    weights = (weights + up).clamp(max=rule.w_max)
    down = rule.rate_down * weights * torch.outer(traces.post, pre)
    weights = (weights - down).clamp(min=0.0)
    return weights, Traces(a, rule.decay_post * traces.post + post)


def learn(
    inputs: Tensor,
    weights: Tensor,
    rule: STDP | None = None,
    *,
    beta: float = 0.8,
    v_threshold: float = 4.0,
) -> tuple[Tensor, Tensor]:
    """LIF neurons read spikes and learn as they go.

    Args:
        inputs: spikes `[T, N]`.
        weights: at the start, `[M, N]`.
        rule: of learning; the defaults if None.
        beta, v_threshold: of the neurons (hard reset to 0, `spikeloom.ops.lif.naive`).

    Returns:
        the weights after the last step, and the spikes of the neurons `[T, M]`.
    """
    rule = STDP() if rule is None else rule
    traces, v, fired = Traces.silent(weights), weights.new_zeros(weights.shape[0]), []
    for pre in inputs:
        spikes, v = lif((weights @ pre)[None], v, beta=beta, v_threshold=v_threshold, v_reset=0.0)
        weights, traces = stdp_step(weights, traces, pre, spikes[0], rule)
        fired.append(spikes[0])
    return weights, torch.stack(fired)


def toy_pattern(
    steps: int = 5000, inputs: int = 40, pattern: int = 12, every: int = 25, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Spikes with something to find: the first `pattern` inputs fire together, all else is chance.

    Every input fires at the same mean rate (`1 / every`), so that only timing tells them apart.

    Returns:
        spikes `[steps, inputs]`, and where the pattern stood, boolean `[steps]`.
    """
    generator = torch.Generator().manual_seed(seed)
    spikes = (torch.rand(steps, inputs, generator=generator) < 1 / every).float()
    shown = torch.rand(steps, generator=generator) < 1 / every
    spikes[:, :pattern] = shown[:, None].float()
    return spikes, shown
