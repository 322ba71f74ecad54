"""The memoryless graded neuron as torch operators on the Triton programs of `triton_emission`.

Same numbers as `memoryless.graded_emission`, with the bias before the neuron and, if there is one,
the RMSNorm or squared ReLU before the bias taken in: forward reads `x` once and writes the
emission, backward reads `x` and the gradient once, and nothing but `x` is kept. Everything between
is float32. torch.compile sees into the operators: it launches the programs from its own code, and
merges the small sums with what is around them. A dead zone that opens during training is read from
a tensor: nothing is compiled anew, and a CUDA graph follows it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from spikeloom.ops.launches import wrap_triton
from spikeloom.ops.lif.triton_emission import emission_backward, emission_forward

WIDEST_NORM = 8192  # channels: a program holds whole rows


def graded_emission(
    x: Tensor,
    bias: Tensor,
    log_theta: Tensor,
    *,
    weight: Tensor | None = None,
    eps: float = 0.0,
    squared: bool = False,
    levels: int,
    fire_level: int,
    signed: bool,
    window: float = 0.5,
    dtype: torch.dtype | None = None,
    dead_zone: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `memoryless.graded_emission(f(x) + bias, exp(log_theta), ...)`, f of three kinds.

    Args:
        x: `[..., D]`.
        bias, log_theta: bias and logarithm of the payload step of the neuron, `[D]`.
        weight, eps: of an RMSNorm `[D]`, D at most `WIDEST_NORM`: `f = rms_norm`.
        squared: `f(x) = relu(x)^2`. Without either, f changes nothing.
        levels, fire_level, signed, window, dtype: as in `memoryless`.
        dead_zone: `dead_zone(fire_level, window)` of the fire level from which on payloads are
            sent; `fire_level` is then that of the rate alone (`rate_level` in `memoryless`).
    """
    dtype = dtype or torch.promote_types(x.dtype, (bias if weight is None else weight).dtype)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    y, rate, _ = lif_emission(
        rows, weight, bias, log_theta, dead_zone, eps, squared,
        levels, fire_level, signed, window, dtype,
    )  # fmt: skip
    return y.reshape(x.shape), rate


def dead_zone(fire_level: int, window: float) -> Tensor:
    """`[2]` float32: from where on a neuron fires and gradient passes, between two payloads."""
    return torch.tensor([fire_level - 0.5, math.ceil(window * fire_level) - 0.5])


class Tiling(NamedTuple):
    """Rows and channels that a program holds at a time, and how many programs share the rows."""

    rows: int
    cols: int
    parts: int
    warps: int


def tiling(N: int, D: int, normed: bool, backward: bool) -> Tiling:
    """Reasoned from how many programs an H100 runs at once."""
    if normed:
        cols = triton.next_power_of_2(D)
        elements = 1024 if backward else 2048
        rows, warps = max(1, elements // cols), max(4, min(16, cols // 256))
    else:
        cols = min(256, triton.next_power_of_2(D))
        rows, warps = 2048 // cols, 4
    parts = -(-N // rows)
    if backward:
        columns = -(-D // cols)
        parts = min(parts, max(1, 1056 // columns))  # 8 programs for each of 132 multiprocessors
    return Tiling(rows, cols, parts, warps)


@torch.library.triton_op("spikeloom::lif_emission", mutates_args=())
def lif_emission(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor,
    log_theta: Tensor,
    dead_zone: Tensor | None,
    eps: float,
    squared: bool,
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
    grid = (tile.parts, -(-D // tile.cols))
    fired = x.new_empty(grid, dtype=torch.float32)
    with torch.cuda.device_of(x):
        wrap_triton(emission_forward)[grid](
            x, weight, bias, log_theta, dead_zone, y, scale, fired, N, D, eps, levels, fire_level,
            SQUARED=squared, SIGNED=signed, ROWS=tile.rows, COLS=tile.cols, num_warps=tile.warps,
        )  # fmt: skip
    return y, fired.sum() / x.numel(), scale


@lif_emission.register_fake
def _(
    x, weight, bias, log_theta, dead_zone, eps, squared, levels, fire_level, signed, window, dtype
):
    return _empty_outputs(x, weight, dtype)


@torch.library.triton_op("spikeloom::lif_emission_backward", mutates_args=())
def lif_emission_backward(
    grad: Tensor,
    grad_rate: Tensor,
    scale: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor,
    log_theta: Tensor,
    dead_zone: Tensor | None,
    squared: bool,
    levels: int,
    fire_level: int,
    signed: bool,
    window: float,
) -> tuple[Tensor, Tensor]:
    """Gradient of x, and those of log_theta, bias and weight as `[3, D]` in float32."""
    N, D = x.shape
    tile = tiling(N, D, weight is not None, backward=True)
    grad_x = torch.empty_like(x)
    sums = x.new_empty((tile.parts, 3, D), dtype=torch.float32)
    with torch.cuda.device_of(x):
        wrap_triton(emission_backward)[tile.parts, -(-D // tile.cols)](
            x, weight, bias, log_theta, dead_zone, scale, grad.contiguous(), grad_rate, grad_x,
            sums, N, D, levels, fire_level, math.ceil(window * fire_level),
            SQUARED=squared, SIGNED=signed, ROWS=tile.rows, COLS=tile.cols, num_warps=tile.warps,
        )  # fmt: skip
    return grad_x, sums.sum(0)


@lif_emission_backward.register_fake
def _(grad, grad_rate, scale, x, *others):
    return torch.empty_like(x), x.new_empty((3, x.shape[1]), dtype=torch.float32)


def _remember(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, log_theta, dead_zone, _, *shape, _ = inputs
    ctx.save_for_backward(output[2], x, weight, bias, log_theta, dead_zone)
    ctx.shape = shape
    ctx.dtype = output[0].dtype
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, grad_rate: Tensor | None, _: Any) -> tuple:
    scale, *tensors = ctx.saved_tensors
    x, weight, bias, log_theta, _ = tensors
    if grad is None:
        grad = x.new_zeros(x.shape, dtype=ctx.dtype)
    if grad_rate is None:
        grad_rate = x.new_zeros((), dtype=torch.float32)
    grad_x, sums = lif_emission_backward(grad, grad_rate, scale, *tensors, *ctx.shape)
    by_log_theta, by_bias = sums[0].to(log_theta.dtype), sums[1].to(bias.dtype)
    by_weight = None if weight is None else sums[2].to(weight.dtype)
    return grad_x, by_weight, by_bias, by_log_theta, *[None] * 8


lif_emission.register_autograd(_differentiate, setup_context=_remember)


def _empty_outputs(
    x: Tensor, weight: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    rows = 0 if weight is None else x.shape[0]
    scalar = x.new_empty((), dtype=torch.float32)
    return torch.empty_like(x, dtype=dtype), scalar, x.new_empty(rows, dtype=torch.float32)
