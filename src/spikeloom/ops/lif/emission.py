"""The memoryless graded neuron as torch operators on the Triton programs of `triton_emission`.

Same numbers as `memoryless.graded_emission`, with the bias before the neuron and, if there is one,
the RMSNorm before the bias taken in: forward reads `x` once and writes the emission, backward reads
`x` and the gradient once. Everything between is float32. `fire_level` is a plain number to the
operators and their programs: a dead zone that opens during training compiles nothing anew.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from spikeloom.ops.lif import triton_emission

WIDEST_NORM = 8192  # channels: a program holds whole rows


def graded_emission(
    x: Tensor,
    bias: Tensor,
    theta: Tensor,
    *,
    levels: int,
    fire_level: int,
    signed: bool,
    window: float = 0.5,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """As `memoryless.graded_emission(x + bias, theta, ...)`."""
    dtype = dtype or torch.promote_types(x.dtype, bias.dtype)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    y, rate, _ = lif_emission(
        rows, None, bias, theta, 0.0, levels, fire_level, signed, window, dtype
    )
    return y.reshape(x.shape), rate


def normed_emission(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    theta: Tensor,
    *,
    eps: float,
    levels: int,
    fire_level: int,
    signed: bool,
    window: float = 0.5,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """As `memoryless.graded_emission(rms_norm(x, weight, eps) + bias, theta, ...)`.

    Args:
        x: `[..., D]`, D at most `WIDEST_NORM`.
        weight, bias, theta: gain of the norm, bias and payload step of the neuron, `[D]`.
        eps, levels, fire_level, signed, window, dtype: of the norm, and as in `memoryless`.
    """
    dtype = dtype or torch.promote_types(x.dtype, weight.dtype)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    y, rate, _ = lif_emission(
        rows, weight, bias, theta, eps, levels, fire_level, signed, window, dtype
    )
    return y.reshape(x.shape), rate


class Tiling(NamedTuple):
    """Rows and channels that a program holds at a time, and how many programs share the rows."""

    rows: int
    cols: int
    parts: int
    warps: int


def tiling(N: int, D: int, normed: bool, backward: bool) -> Tiling:
    """Reasoned from how many programs an H100 runs at once; not yet measured."""
    if normed:
        cols = triton.next_power_of_2(D)
        rows, warps = max(1, 1024 // cols), max(4, min(16, cols // 256))
    else:
        cols = min(256, triton.next_power_of_2(D))
        rows, warps = 2048 // cols, 4
    rows = min(rows, triton.next_power_of_2(N))
    parts = triton.cdiv(N, rows)
    if backward:
        columns = triton.cdiv(D, cols)
        parts = min(parts, max(1, 1056 // columns))  # 8 programs for each of 132 multiprocessors
    return Tiling(rows, cols, parts, warps)


@torch.library.custom_op("spikeloom::lif_emission", mutates_args=())
def lif_emission(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor,
    theta: Tensor,
    eps: float,
    levels: int,
    fire_level: int,
    signed: bool,
    window: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Emission `[N, D]`, firing rate, and 1 / rms of each row (empty without a norm)."""
    N, D = x.shape
    tile = tiling(N, D, weight is not None, backward=False)
    y, _, scale = _empty_outputs(x, weight, dtype)
    grid = (tile.parts, triton.cdiv(D, tile.cols))
    fired = x.new_empty(grid, dtype=torch.float32)
    with torch.cuda.device_of(x):
        triton_emission.emission_forward[grid](
            x, weight, bias, theta, y, scale, fired, N, D, eps, float(levels), fire_level - 0.5,
            SIGNED=signed, ROWS=tile.rows, COLS=tile.cols, num_warps=tile.warps,
        )  # fmt: skip
    return y, fired.sum() / x.numel(), scale


@lif_emission.register_fake
def _(x, weight, bias, theta, eps, levels, fire_level, signed, window, dtype):
    return _empty_outputs(x, weight, dtype)


@torch.library.custom_op("spikeloom::lif_emission_backward", mutates_args=())
def lif_emission_backward(
    grad: Tensor,
    grad_rate: Tensor,
    scale: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor,
    theta: Tensor,
    levels: int,
    fire_level: int,
    signed: bool,
    window: float,
) -> tuple[Tensor, Tensor]:
    """Gradient of x, and those of theta, bias and weight as `[3, D]` in float32."""
    N, D = x.shape
    tile = tiling(N, D, weight is not None, backward=True)
    grad_x = torch.empty_like(x)
    sums = x.new_empty((tile.parts, 3, D), dtype=torch.float32)
    with torch.cuda.device_of(x):
        triton_emission.emission_backward[tile.parts, triton.cdiv(D, tile.cols)](
            x, weight, bias, theta, scale, grad.contiguous(), grad_rate, grad_x, sums, N, D,
            float(levels), fire_level - 0.5, math.ceil(window * fire_level) - 0.5,
            SIGNED=signed, ROWS=tile.rows, COLS=tile.cols, num_warps=tile.warps,
        )  # fmt: skip
    return grad_x, sums.sum(0)


@lif_emission_backward.register_fake
def _(grad, grad_rate, scale, x, *others):
    return torch.empty_like(x), x.new_empty((3, x.shape[1]), dtype=torch.float32)


def _remember(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, theta, _, *shape, _ = inputs
    ctx.save_for_backward(output[2], x, weight, bias, theta)
    ctx.shape = shape
    ctx.dtype = output[0].dtype
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, grad_rate: Tensor | None, _: Any) -> tuple:
    scale, *tensors = ctx.saved_tensors
    x, weight, bias, theta = tensors
    if grad is None:
        grad = x.new_zeros(x.shape, dtype=ctx.dtype)
    if grad_rate is None:
        grad_rate = x.new_zeros((), dtype=torch.float32)
    grad_x, sums = lif_emission_backward(grad, grad_rate, scale, *tensors, *ctx.shape)
    by_theta, by_bias = sums[0].to(theta.dtype), sums[1].to(bias.dtype)
    by_weight = None if weight is None else sums[2].to(weight.dtype)
    return grad_x, by_weight, by_bias, by_theta, *[None] * 6


lif_emission.register_autograd(_differentiate, setup_context=_remember)


def _empty_outputs(
    x: Tensor, weight: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    rows = 0 if weight is None else x.shape[0]
    scalar = x.new_empty((), dtype=torch.float32)
    return torch.empty_like(x, dtype=dtype), scalar, x.new_empty(rows, dtype=torch.float32)
