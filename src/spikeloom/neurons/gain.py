"""A gain per channel that follows from what all channels hear: which of them matter now?

    v = 2 sigmoid(U V x + c) * x        V [r, D], U [D, r], c [D]

A neuron that fires where its input is large takes size for importance. With a gain of low rank, the
other channels have a say: one that matters in this context is raised above its threshold, one that
does not is held below. U and c begin at 0, a gain of 1. The two products are dense, 2 r D weights
per neuron, and count as read for every token.

Sigmoid gates on what they multiply: squeeze-and-excitation (Hu et al. 2018); in neurons, gain
modulation (Salinas and Thier 2000).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ContextGain(nn.Module):
    """Scales `[..., size]` by gains between 0 and 2, through `rank` numbers.

    Attributes:
        narrow, widen: V and U.
        bias: c.
    """

    def __init__(self, size: int, rank: int) -> None:
        super().__init__()
        self.narrow = nn.Parameter(torch.empty(rank, size))
        self.widen = nn.Parameter(torch.empty(size, rank))
        self.bias = nn.Parameter(torch.empty(size))

    @property
    def weights(self) -> int:
        """How many are read for a token."""
        return self.narrow.numel() + self.widen.numel()

    def reset_parameters(self) -> None:
        from transformers import initialization as init

        init.normal_(self.narrow, 0.0, self.narrow.shape[1] ** -0.5)
        init.zeros_(self.widen)
        init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        context = nn.functional.linear(x, self.narrow)
        return x * (2.0 * torch.sigmoid(nn.functional.linear(context, self.widen, self.bias)))
