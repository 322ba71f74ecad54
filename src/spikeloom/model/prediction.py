"""Predictive coding: an MLP that sees only what was not expected.

    e[l] = n[l] - a * n[l-1]        n the normalised input, a learned per channel, from 0.5

The neuron behind it spikes where the error e is large; where the prediction holds no channel fires,
and the dense refinement that follows (an MLP without biases) is not computed at all. The first
token of a document has nothing before it, its error is n itself. After Rao and Ballard 1999, with
the simplest predictor there is: one number per channel, so that predicting costs no product.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeloom.model.shift import one_back

START = 0.5


class Prediction(nn.Module):
    """Errors `[B, L, D]` of a token-to-token prediction, and the last input `[B, D]`.

    Args:
        size: channels D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))

    def reset_parameters(self) -> None:
        from transformers import initialization as init

        init.constant_(self.weight, START)

    def forward(
        self, n: Tensor, previous: Tensor | None, starts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return n - self.weight * one_back(n, previous, starts), n[:, -1]
