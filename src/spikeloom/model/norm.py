"""Norms that are taken in the precision of their gain, also inside mixed precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeloom.config import ModelConfig


class RMSNorm(nn.RMSNorm):
    """`gain * x / sqrt(mean(x^2) + eps)` over the last axis (Zhang and Sennrich 2019).

    A row of zeros, which is what silent neurons leave, points nowhere: it gets no gradient. The
    slope there would be 1 / sqrt(eps), mostly a thousand, and a few layers of it overflow. Rows
    that are only nearly zero keep theirs.
    """

    eps: float  # always given

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        if not x.requires_grad:
            return super().forward(x.to(dtype))  # torch's own program
        x = x.to(torch.promote_types(dtype, torch.float32))  # squares of halves over- and underflow
        square = x.square().mean(-1, keepdim=True)  # written out: one reduction serves both
        scale = torch.where(square > 0, torch.rsqrt(square + self.eps), 0.0)
        return (x * scale * self.weight).to(dtype)


class LayerNorm(nn.LayerNorm):
    """`gain * (x - mean) / sqrt(variance + eps)` over the last axis (Ba et al. 2016).

    Without an offset: the neuron behind it has one.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__(size, eps=eps, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(torch.promote_types(x.dtype, self.weight.dtype)))


def make_norm(config: ModelConfig) -> nn.Module:
    """What `config.norm` asks for, over the residual stream."""
    if config.norm == "none":
        return nn.Identity()
    norm = RMSNorm if config.norm == "rms" else LayerNorm
    return norm(config.hidden_size, eps=config.rms_norm_eps)
