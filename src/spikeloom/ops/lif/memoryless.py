"""The graded neuron with `beta = 0`, fused: payload, emission and firing rate in one pass.

Without memory there is no scan, so the specification's loop collapses to one element-wise
function. It is its own autograd function because the naive composition keeps six tensors for the
backward pass where the membrane alone is enough (everything else is recomputed from it).
"""

from __future__ import annotations

import torch
from torch import Tensor


def graded_emission(
    v: Tensor,
    theta: Tensor,
    *,
    levels: int,
    fire_level: int,
    signed: bool,
    window: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """What a memoryless graded neuron emits, and how often it fires.

    The emission's gradient is that of `theta * graded_spike(v, theta)`. The rate is a count, so its
    gradient is a triangle around the firing boundary `b = fire_level - 1/2`, half as wide as b:
    `d rate / d |v / theta| = max(0, 1 - 2 ||v / theta| - b| / b) * 2 / b`, divided by the number of
    elements. The firing-rate loss pulls on it.

    Args:
        v: membrane, `[..., D]`.
        theta: payload step, positive, `[D]`.
        levels, fire_level, signed, window: as in `spikeloom.ops.lif.naive`.

    Returns:
        `theta * s`, `[..., D]`, and the share of elements with `s != 0`, a scalar in float32.
    """
    return _GradedEmission.apply(v, theta, levels, fire_level, signed, window)


class _GradedEmission(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v, theta, levels, fire_level, signed, window):
        ctx.save_for_backward(v, theta)
        ctx.shape = (levels, fire_level, signed, window)
        k = torch.round(v / theta)
        fires = (k.abs() if signed else k) >= fire_level
        s = torch.where(fires, k.clamp(-levels if signed else 0, levels), torch.zeros_like(k))
        return theta * s, fires.float().mean()

    @staticmethod
    def backward(ctx, grad, grad_rate):
        v, theta = ctx.saved_tensors
        levels, fire_level, signed, window = ctx.shape
        u = v / theta
        k = torch.round(u)
        size = k.abs() if signed else k
        s = torch.where(size >= fire_level, k.clamp(-levels if signed else 0, levels), 0.0)
        passes = (size >= window * fire_level) & (size <= levels)

        boundary = fire_level - 0.5
        distance = (u.abs() if signed else u) - boundary
        slope = (1.0 - 2.0 * distance.abs() / boundary).clamp(min=0.0) * (2.0 / boundary)
        pull = (grad_rate / v.numel()).to(v.dtype) * slope * (u.sign() if signed else 1.0)

        zero = torch.zeros_like(grad)
        grad_u = torch.where(passes, grad * theta, zero) + pull
        grad_theta = (grad * s - grad_u * u / theta).flatten(0, -2).sum(0)
        return (grad_u / theta).to(v.dtype), grad_theta.to(theta.dtype), None, None, None, None
