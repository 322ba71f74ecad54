"""The graded neuron with `beta = 0`, fused: payload, emission and firing rate in one pass.

Without memory there is no scan, so the specification's loop collapses to one element-wise
function. It is its own autograd function because the naive composition keeps six tensors for the
backward pass where the membrane alone is enough (everything else is recomputed from it).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def graded_emission(
    v: Tensor,
    theta: Tensor,
    *,
    levels: int,
    fire_level: int,
    signed: bool,
    window: float = 0.5,
    rate_level: int | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """What a memoryless graded neuron emits, and how often it fires.

    The emission's gradient is that of `theta * graded_spike(v, theta)`. The rate is a count, so its
    gradient is a triangle around the firing boundary `b = rate_level - 1/2`, half as wide as b:
    `d rate / d |v / theta| = max(0, 1 - 2 ||v / theta| - b| / b) * 2 / b`, divided by the number of
    elements. The firing-rate loss pulls on it.

    Args:
        v: membrane, `[..., D]`.
        theta: payload step, positive, `[D]`.
        levels, fire_level, signed, window: as in `spikeloom.ops.lif.naive`.
        rate_level: the payload from which on a channel counts as firing; `fire_level` if None.
        dtype: of the emission; that of `v` if None.

    Returns:
        `theta * s`, `[..., D]`, and the share of elements that fire, a scalar in float32.
    """
    rate_level = fire_level if rate_level is None else rate_level
    shape = (levels, fire_level, signed, window, rate_level)
    return _GradedEmission.apply(v, theta, *shape, dtype or v.dtype)


class _GradedEmission(torch.autograd.Function):
    # Thresholds between integers (x.5) and the shrink family of activations stand in for
    # comparisons and `where`: the same numbers, several times faster on a CPU.

    @staticmethod
    def forward(ctx, v, theta, levels, fire_level, signed, window, rate_level, dtype):
        ctx.save_for_backward(v, theta)
        ctx.shape = (levels, fire_level, signed, window, rate_level)
        k = (v / theta).round_()
        s = _payloads(k, levels, fire_level, signed)
        counted = s if rate_level == fire_level else _payloads(k, levels, rate_level, signed)
        # `count_nonzero` is slow on a CPU
        fired = counted.abs().clamp_(max=1).mean(dtype=torch.float32)
        return (theta * s).to(dtype), fired

    @staticmethod
    def backward(ctx, grad, grad_rate):
        v, theta = ctx.saved_tensors
        levels, fire_level, signed, window, rate_level = ctx.shape
        grad = grad.to(theta.dtype)
        u = v / theta
        k = u.round()
        opens = math.ceil(window * fire_level) - 0.5
        grad_u = _window(grad * theta, k, opens, levels + 0.5, signed)
        grad_u += _rate_slope(u, rate_level - 0.5, signed) * (grad_rate / v.numel())
        grad_v = grad_u / theta
        s = _payloads(k, levels, fire_level, signed)
        grad_theta = (grad * s - grad_v * u).sum_to_size(theta.shape)
        return grad_v.to(v.dtype), grad_theta, *[None] * 6


def _payloads(k: Tensor, levels: int, fire_level: int, signed: bool) -> Tensor:
    if signed:
        return F.hardshrink(k, fire_level - 0.5).clamp_(-levels, levels)
    return F.threshold(k, fire_level - 0.5, 0.0).clamp_(max=levels)


def _window(grad: Tensor, k: Tensor, opens: float, closes: float, signed: bool) -> Tensor:
    """`grad` where `opens < |k| < closes` (`k` itself if unsigned), else 0."""
    grad = torch.ops.aten.hardtanh_backward(grad, k, -closes, closes)
    if not signed:
        return torch.ops.aten.threshold_backward(grad, k, opens)
    return torch.ops.aten.hardshrink_backward(grad, k, opens) if opens > 0 else grad


def _rate_slope(u: Tensor, boundary: float, signed: bool) -> Tensor:
    """Triangle of area 1 around the boundary, pointing away from zero."""
    distance = ((u.abs() if signed else u) - boundary).abs_()
    slope = distance.mul_(-4.0 / boundary**2).add_(2.0 / boundary).clamp_(min=0.0)
    return slope.mul_(u.sign()) if signed else slope
