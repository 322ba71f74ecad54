"""The spike, and its hand-written gradient.

A spike has no useful derivative: `mx.custom_function` gives it one, and everything around it
(payload step, reset, leak) is differentiated by MLX. The equations are those of
`spikeloom.ops.lif.naive`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import mlx.core as mx

from spikeloom.config import NeuronConfig

Function = Callable[[mx.array], mx.array]

# h(u): slopes that stand in for the derivative of 1[u >= 0]; the table in spikeloom.ops.surrogate.
SLOPES: dict[str, Function] = {
    "atan": lambda u: 1 / (1 + mx.square(math.pi * u)),
    "sigmoid": lambda u: 0.5 - 0.5 * mx.square(mx.tanh(u)),
    "fast_sigmoid": lambda u: 1 / mx.square(1 + 2 * mx.abs(u)),
    "piecewise_quadratic": lambda u: mx.maximum(0, 1 - mx.abs(u)),
    "straight_through": lambda u: (mx.abs(u) <= 0.5).astype(u.dtype),
}


def with_slope(function: Function, slope: Function) -> Function:
    """`function`, with `slope` as its derivative."""
    custom: Any = mx.custom_function(function)
    custom.vjp(lambda u, cotangent, _: cotangent * slope(u))
    return custom  # type: ignore[no-any-return]


@lru_cache
def spike(c: NeuronConfig) -> Function:
    """Payloads `s` of `u`: `v / theta` (graded), or `v - v_threshold` (LIF).

    Gradient: straight-through within the window (graded), the surrogate (LIF).
    """
    if c.kind == "lif":
        return with_slope(lambda u: (u >= 0).astype(u.dtype), SLOPES[c.surrogate])

    def payloads(u: mx.array) -> mx.array:
        k = mx.round(u)  # halves to even
        return mx.where(_size(k, c) >= c.fire_level, mx.clip(k, -c.levels, c.levels), 0)

    def window(u: mx.array) -> mx.array:
        size = _size(mx.round(u), c)
        inside = (size >= c.window * c.fire_level) & (size <= c.levels)
        return inside.astype(u.dtype)

    return with_slope(payloads, window)


@lru_cache
def counted(c: NeuronConfig) -> Function:
    """Whether a memoryless graded neuron fires at `u = v / theta`, as 0 or 1.

    Gradient: a triangle of area 1 around the firing boundary `b = rate_level - 1/2`.
    """
    b = c.rate_level - 0.5

    def fires(u: mx.array) -> mx.array:
        return (_size(mx.round(u), c) >= c.rate_level).astype(u.dtype)

    def triangle(u: mx.array) -> mx.array:
        slope = mx.maximum(0, 2 / b - 4 / b**2 * mx.abs(_size(u, c) - b))
        return slope * mx.sign(u) if c.signed else slope

    return with_slope(fires, triangle)


@lru_cache
def nonzero(c: NeuronConfig) -> Function:
    """Whether a payload counts as fired, as 0 or 1.

    Gradient: that of the mean payload, on the scale of one spike.
    """
    if c.kind == "lif":
        return lambda s: s
    level = c.rate_level
    return with_slope(lambda s: (mx.abs(s) >= level).astype(s.dtype), lambda s: mx.sign(s) / level)


def _size(k: mx.array, c: NeuronConfig) -> mx.array:
    return mx.abs(k) if c.signed else k
