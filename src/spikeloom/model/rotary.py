"""Rotary position embedding (Su et al. 2021), halves rotated as in Llama.

    (a, b) -> (a cos - b sin, b cos + a sin),   angle = position * theta^(-i / half)

Angles depend on positions alone: a decoder computes their cosines and sines once for all layers.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotation(positions: Tensor, theta: float, half: int) -> Tensor:
    """Cosines and sines, `[2, B, 1, L, half]` in float32.

    Args:
        positions: `[B, L]`.
        theta: base of the geometric series of wavelengths.
        half: half the width of a head.
    """
    compiling = torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting()
    if compiling and torch.is_grad_enabled():
        return _computed_once(positions, theta, half)
    return _cos_and_sin(positions, theta, half)


def rotate(x: Tensor, turned: Tensor) -> Tensor:
    """Queries or keys `[B, H, L, K]`, turned by a `rotation`."""
    cos, sin = turned
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def _cos_and_sin(positions: Tensor, theta: float, half: int) -> Tensor:
    exponents = torch.arange(half, device=positions.device, dtype=torch.float32) / half
    angles = positions[:, None, :, None].float() * theta**-exponents
    return torch.stack([angles.cos(), angles.sin()])


@torch.library.custom_op("spikeloom::rotation", mutates_args=())
def _computed_once(positions: Tensor, theta: float, half: int) -> Tensor:
    """An operator that torch.compile cannot see into, on purpose.

    What it sees into it merges with each use: every layer would then compute powers, cosines and
    sines for every head, forward and backward, a sixth of a training step on a GPU.
    """
    return _cos_and_sin(positions, theta, half)


@_computed_once.register_fake
def _(positions: Tensor, theta: float, half: int) -> Tensor:
    B, L = positions.shape
    return positions.new_empty((2, B, 1, L, half), dtype=torch.float32)
