"""The sliding parallel spiking neuron for all steps at once: k shifted copies, weighted."""

from __future__ import annotations

import torch
from torch import Tensor


def sliding_membrane(
    x: Tensor,
    taps: Tensor,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Same arguments and results as `naive.sliding_membrane`."""
    S, k = len(x), len(taps)
    first = x.new_zeros(k - 1, *x.shape[1:]) if initial_state is None else initial_state
    inputs = torch.cat([first, x])
    begins = None if starts is None else _begins(starts, k)
    h = taps[0] * x
    for j in range(1, k):
        before = inputs[k - 1 - j : k - 1 - j + S]
        if begins is not None:
            steps = _column(torch.arange(S, device=x.device), x)
            before = before.masked_fill(steps - j < begins, 0.0)
        h = h + taps[j] * before
    last = inputs[S:]
    if begins is not None:
        steps = _column(torch.arange(S - k + 1, S, device=x.device), x)
        last = last.masked_fill(steps < begins[-1], 0.0)
    return h, last


def _begins(starts: Tensor, k: int) -> Tensor:
    """The step at which the document of each step began, `[S, ...]`; long ago if before these."""
    steps = _column(torch.arange(len(starts), device=starts.device), starts)
    return torch.where(starts, steps, -k).cummax(0).values


def _column(steps: Tensor, like: Tensor) -> Tensor:
    """`[S]` as `[S, 1, ...]`."""
    return steps.view(-1, *[1] * (like.dim() - 1))
