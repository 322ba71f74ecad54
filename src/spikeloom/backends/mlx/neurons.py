"""A population of neurons as an MLX module; the membrane in time is in `scan.py`."""

from __future__ import annotations

import math

import mlx.core as mx
from mlx import nn

from spikeloom.backends.mlx.scan import scan
from spikeloom.backends.mlx.spikes import counted, nonzero, spike
from spikeloom.backends.mlx.state import LayerMemory
from spikeloom.config import NeuronConfig


class ContextGain(nn.Module):
    """`2 sigmoid(U V x + c) * x`, in float32 (`spikeloom.neurons.gain`).

    Attributes:
        narrow, widen, bias: V `[rank, D]`, U `[D, rank]`, c `[D]`; no product that is quantised or
            that mlx-lm adapts.
    """

    def __init__(self, size: int, rank: int) -> None:
        super().__init__()
        self.narrow = mx.random.normal((rank, size), scale=size**-0.5)
        self.widen = mx.zeros((size, rank))
        self.bias = mx.zeros(size)

    def __call__(self, x: mx.array) -> mx.array:
        return x * (2 * mx.sigmoid(x @ self.narrow.T @ self.widen.T + self.bias))


class Neuron(nn.Module):
    """A population of `size` channels, right before weight products.

    Args:
        config: its kind and constants; may be replaced while dead zones open.
        size: channels `D`.

    Attributes:
        bias, log_theta, raw_beta: `[D]`, as far as the kind has them.
        gain: where the config asks for one.
    """

    def __init__(self, config: NeuronConfig, size: int) -> None:
        super().__init__()
        self.config = config
        if config.kind != "none":
            self.bias = mx.zeros(size)
        if config.kind == "graded":
            self.log_theta = mx.full(size, math.log(config.theta))
        if config.kind != "none" and config.learn_beta:
            self.raw_beta = mx.full(size, math.log(config.beta / (1 - config.beta)))
        if config.gain_rank:
            self.gain = ContextGain(size, config.gain_rank)

    def __call__(
        self, x: mx.array, memory: LayerMemory | None = None, name: str = ""
    ) -> tuple[mx.array, mx.array]:
        """What it sends on `[T, B, L, D]`, and its firing rate `[]`.

        Steps are the T of the step clock, or, where T = 1 and the membrane remembers, the L tokens:
        then `memory` carries the membrane on, under `name`. A wire sends its input, at rate 1.
        """
        c = self.config
        if c.kind == "none":
            return x, mx.array(1.0)
        theta, beta = self.constants()
        x = x.astype(mx.float32)
        x = (self.gain(x) if "gain" in self else x) + self.bias
        if c.memoryless and len(x) == 1 and c.kind == "graded" and c.clip_membrane is None:
            u = x / theta
            return theta * spike(c)(u), counted(c)(u).astype(mx.float32).mean()
        along_tokens = len(x) == 1 and not c.memoryless
        axis, memory = (2, memory) if along_tokens else (0, None)
        initial = None if memory is None else memory.arrays.get(name)
        s, last = scan(mx.moveaxis(x, axis, 0), theta, beta, c, initial)
        if memory is not None:
            memory.arrays[name] = last
        y = s * theta if c.kind == "graded" else s
        return mx.moveaxis(y, 0, axis), nonzero(c)(s).astype(mx.float32).mean()

    def constants(self) -> tuple[mx.array, mx.array]:
        """theta (`exp(log_theta)`, or v_threshold) and beta, `[D]`."""
        c, ones = self.config, mx.ones(self.bias.shape)
        if c.kind == "graded":
            theta = mx.exp(self.log_theta.astype(mx.float32))
        else:
            theta = c.v_threshold * ones
        beta = mx.sigmoid(self.raw_beta.astype(mx.float32)) if c.learn_beta else c.beta * ones
        return theta, beta
