"""Muon with all matrices of one shape orthogonalised together.

`torch.optim.Muon` is the specification; it goes from matrix to matrix, which on a GPU is some
twenty-five small launches for each. A decoder has few shapes and many matrices of each.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor


class BatchedMuon(torch.optim.Muon):
    """`torch.optim.Muon` (Jordan et al. 2024) with `adjust_lr_fn="match_rms_adamw"`, in batches.

    Its state is torch's own: checkpoints of either load into the other.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, adjust_lr_fn="match_rms_adamw", **options)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise TypeError("BatchedMuon.step takes no closure: compute the gradients before it")
        for group in self.param_groups:
            parameters: list[Tensor] = []
            gradients: list[Tensor] = []
            momenta: list[Tensor] = []
            self._init_group(group, parameters, gradients, momenta)
            if parameters:
                self._step(group, parameters, gradients, momenta)

    def _step(
        self,
        group: dict[str, Any],
        parameters: list[Tensor],
        gradients: list[Tensor],
        momenta: list[Tensor],
    ) -> None:
        momentum, rate = group["momentum"], float(group["lr"])
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        updates = (
            torch._foreach_lerp(gradients, momenta, momentum) if group["nesterov"] else momenta
        )
        torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        by_shape = defaultdict(list)
        for parameter, update in zip(parameters, updates, strict=True):
            by_shape[parameter.shape].append((parameter, update))
        for shape, pairs in by_shape.items():
            alike, theirs = zip(*pairs, strict=True)
            directions = orthogonal(torch.stack(theirs), group)
            adjusted = rate * 0.2 * math.sqrt(max(shape))
            torch._foreach_add_(alike, directions.unbind(), alpha=-adjusted)


def orthogonal(matrices: Tensor, group: dict[str, Any]) -> Tensor:
    """`U S V^T` made near `U V^T` by Newton-Schulz steps in bfloat16, `[n, rows, columns]`."""
    a, b, c = group["ns_coefficients"]
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
