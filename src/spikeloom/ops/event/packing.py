"""From the weight of a linear layer to input-major rows: in C++ where it can be, else in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeloom.ops.event import native
from spikeloom.ops.event.weights import DTYPES, Arena, InputMajor


def pack(
    weight: Tensor,
    step: Tensor | None = None,
    dtype: str = "float32",
    arena: Arena | None = None,
    compiled: bool = True,
) -> InputMajor:
    """Turn a linear layer's weight into rows per input channel.

    Args:
        weight: `[d_out, d_in]`, any float dtype.
        step: theta per input channel `[d_in]`; None is 1.
        dtype: `float32`, `bfloat16` or `int8` (symmetric, one scale per row).
        arena: where to put it; None allocates.
        compiled: use C++ if there is a compiler; the result is the same.
    """
    d_out, d_in = weight.shape
    scale = torch.ones(d_in) if step is None else step.detach().float().clone()
    data = (arena or Arena()).take(d_in, d_out, DTYPES[dtype])
    fill = native.fill if compiled and native.available() else _fill
    return InputMajor(data, fill(data, weight.detach(), scale))


def _fill(data: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Write the rows to `data`; returns the scale of each, `[d_in]`."""
    rows = weight.t()
    if data.dtype == torch.int8:
        quantum = rows.abs().amax(1).float().clamp(min=1e-30) / 127
        rows = (rows.float() / quantum[:, None]).round()
        scale = scale * quantum
    data.copy_(rows)
    return scale
