"""RMSNorm that is taken in the precision of its gain, also inside mixed precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """`gain * x / sqrt(mean(x^2) + eps)` over the last axis (Zhang and Sennrich 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(torch.promote_types(x.dtype, self.weight.dtype)))
