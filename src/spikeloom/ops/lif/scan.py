"""Both neurons over the leading axis as torch operators on the Triton programs of `triton_scan`.

Same arguments and results as `naive`, with these limits: `x` is float32, bfloat16 or float16, the
membrane is always float32 (the state that comes out, too), and the LIF's threshold is positive.
`torch.compile` sees one operator forward and one backward. Gradients of `theta` and `beta` are sums
over tiles and then over rows in a fixed order: the same numbers in every run.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from spikeloom.ops.lif import triton_scan

STEP_CLOCK = 32  # up to so many steps fit into registers: one chunk holds them all


def lif(
    x: Tensor,
    initial_state: Tensor | None = None,
    *,
    beta: float | Tensor = 0.9,
    v_threshold: float = 1.0,
    v_reset: float | None = None,
    surrogate: str = "atan",
    clip_membrane: float | None = None,
    starts: Tensor | None = None,
    keep_state: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """As `naive.lif`; without `keep_state` the last membrane is not written (None).

    Raises:
        ValueError: the threshold is not positive, so that an empty membrane would fire.
    """
    if v_threshold <= 0:
        raise ValueError(f"v_threshold must be positive, not {v_threshold}")
    numbers = (v_threshold, v_reset, clip_membrane, surrogate, 1, 1, False, 0.5)
    return _scan(x, None, beta, initial_state, starts, keep_state, numbers)


def graded_lif(
    x: Tensor,
    theta: Tensor,
    initial_state: Tensor | None = None,
    *,
    beta: float | Tensor = 0.0,
    levels: int,
    fire_level: int,
    signed: bool,
    window: float = 0.5,
    v_reset: float | None = None,
    clip_membrane: float | None = None,
    starts: Tensor | None = None,
    keep_state: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """As `naive.graded_lif`; without `keep_state` the last membrane is not written (None)."""
    numbers = (1.0, v_reset, clip_membrane, "graded", levels, fire_level, signed, window)
    return _scan(x, theta, beta, initial_state, starts, keep_state, numbers)


def _scan(
    x: Tensor,
    theta: Tensor | None,
    beta: float | Tensor,
    first: Tensor | None,
    starts: Tensor | None,
    keep_state: bool,
    numbers: tuple,
) -> tuple[Tensor, Tensor | None]:
    leak, betas = (0.0, beta) if isinstance(beta, Tensor) else (beta, None)
    per_channel = theta is not None or betas is not None or starts is not None
    shape = folded(x, per_channel)
    membrane = x.shape[1:]
    if first is not None:
        first = first.expand(membrane).reshape(shape[1:]).contiguous()
    if starts is not None:
        starts = starts.expand(x.shape).reshape(shape)
    tensors = (theta, betas, first, starts)
    learns = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, theta, betas, first)
    )
    folded_x = _unit_stride(x.reshape(shape))
    spikes, last, _ = lif_scan(folded_x, *tensors, leak, *numbers, keep_state, learns)
    return spikes.reshape(x.shape), last.reshape(membrane) if keep_state else None


def folded(x: Tensor, per_channel: bool) -> tuple[int, int, int, int]:
    """The shape `[S, G, R, D]` under which `x` `[S, ..., D]` can be viewed without a copy.

    Without parameters per channel D may span all lanes. Where no such view exists, a shape that a
    copy fits.
    """
    S, *middle, D = x.shape if x.dim() > 1 else (*x.shape, 1)
    inner = [i for i in range(1, x.dim()) if x.shape[i] > 1]
    if not per_channel and _merge(x, inner):
        return S, 1, 1, math.prod(middle) * D
    for split in range(len(middle) + 1):
        groups, rows = middle[:split], middle[split:]
        borders = range(1, split + 1), range(split + 1, len(middle) + 1)
        if all(_merge(x, [i for i in dims if i in inner]) for dims in borders):
            return S, math.prod(groups), math.prod(rows), D
    return S, 1, math.prod(middle), D


def _merge(x: Tensor, dims: Sequence[int]) -> bool:
    """Whether these axes of `x` can be walked through with one stride."""
    return all(x.stride(a) == x.stride(b) * x.shape[b] for a, b in pairwise(dims))


def _unit_stride(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


class Tiling(NamedTuple):
    """How lanes and steps are cut into programs."""

    rows: int
    cols: int
    chunk: int
    warps: int


def tiling(shape: Sequence[int], learns: bool, backward: bool = False) -> Tiling:
    """Wide tiles where lanes are many, single warps where steps are (`benchmarks/sweep_lif.py`).

    Up to STEP_CLOCK steps the programs are bound by memory, and 2 to 4 lanes per thread keep enough
    of it in flight. Beyond, each thread walks alone through one lane or two; a forward pass that
    learns leaves its membranes where the backward pass begins its chunks.
    """
    S, G, R, D = shape
    if S <= STEP_CLOCK:
        lanes, cols, chunk, warps = 512, 256, S, 8 if backward else 4
    elif learns:
        lanes, cols, chunk, warps = 64, 64, 16, 1
    else:
        lanes, cols, chunk, warps = 32, 32, 32, 1
    rows = min(lanes // min(cols, triton.next_power_of_2(D)), triton.next_power_of_2(G * R))
    return Tiling(rows, min(lanes // rows, triton.next_power_of_2(D)), chunk, warps)


@functools.cache
def below(level: int) -> float:
    """The largest float32 that does not round to `level` or above: halves go to the even side."""
    half = torch.tensor(level - 0.5)
    return (half if level % 2 else half.nextafter(torch.tensor(-math.inf))).item()


@torch.library.custom_op("spikeloom::lif_scan", mutates_args=())
def lif_scan(
    x: Tensor,
    theta: Tensor | None,
    beta: Tensor | None,
    first: Tensor | None,
    starts: Tensor | None,
    leak: float,
    v_threshold: float,
    v_reset: float | None,
    clip: float | None,
    kind: str,
    levels: int,
    fire_level: int,
    signed: bool,
    window: float,
    keep_last: bool,
    keep_inner: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes `[S, G, R, D]`, last membrane and membranes between chunks (empty if not kept)."""
    tile = tiling(x.shape, keep_inner)
    outputs = _empty_outputs(x, keep_last, keep_inner)
    spikes, last, inner = outputs
    with torch.cuda.device_of(x):
        triton_scan.scan_forward[_grid(x, tile)](
            *_inputs(x, theta, beta, first, starts),
            (leak, v_threshold, v_reset, clip, float(levels), below(fire_level)),
            spikes,
            spikes.stride(),
            _or_none(last),
            _or_none(inner),
            *x.shape,
            **_constants(x, kind, signed, tile),
        )
    return outputs


@lif_scan.register_fake
def _(x, theta, beta, first, starts, *numbers):
    return _empty_outputs(x, *numbers[-2:])


@torch.library.custom_op("spikeloom::lif_scan_backward", mutates_args=())
def lif_scan_backward(
    grad: Tensor,
    grad_last: Tensor | None,
    inner: Tensor,
    x: Tensor,
    theta: Tensor | None,
    beta: Tensor | None,
    first: Tensor | None,
    starts: Tensor | None,
    leak: float,
    v_threshold: float,
    v_reset: float | None,
    clip: float | None,
    kind: str,
    levels: int,
    fire_level: int,
    signed: bool,
    window: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, theta, beta and first; empty where there is no such tensor."""
    tile = tiling(x.shape, learns=True, backward=True)
    grad = _unit_stride(grad)
    grad_x, grad_first = torch.empty_like(x), _like(first)
    parts = triton.cdiv(x.shape[1] * x.shape[2], tile.rows)
    by_theta, by_beta = (_like(p, parts) for p in (theta, beta))
    with torch.cuda.device_of(x):
        triton_scan.scan_backward[_grid(x, tile)](
            *_inputs(x, theta, beta, first, starts),
            (leak, v_threshold, v_reset, clip, float(levels), below(fire_level)),
            _or_none(inner),
            grad,
            grad.stride(),
            None if grad_last is None else grad_last.contiguous(),
            grad_x,
            grad_x.stride(),
            _or_none(grad_first),
            _or_none(by_theta),
            _or_none(by_beta),
            below(math.ceil(window * fire_level)),
            below(levels + 1),
            *x.shape,
            **_constants(x, kind, signed, tile),
        )
    return grad_x, _summed(by_theta, theta), _summed(by_beta, beta), grad_first


@lif_scan_backward.register_fake
def _(grad, grad_last, inner, x, theta, beta, first, starts, *numbers):
    return torch.empty_like(x), _like(theta), _like(beta), _like(first)


def _remember(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, theta, beta, first, starts, *numbers, _, _ = inputs
    ctx.save_for_backward(output[2], x, theta, beta, first, starts)
    ctx.numbers = numbers
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, grad_last: Tensor | None, _: Any) -> tuple:
    inner, x, *tensors = ctx.saved_tensors
    if grad is None:
        grad = x.new_zeros(()).expand(x.shape)
    found = lif_scan_backward(grad, grad_last, inner, x, *tensors, *ctx.numbers)
    grad_x, *others = found
    wanted = [
        None if t is None else g.to(t.dtype) for g, t in zip(others, tensors[:3], strict=True)
    ]
    return (grad_x, *wanted, *[None] * (3 + len(ctx.numbers)))


lif_scan.register_autograd(_differentiate, setup_context=_remember)


def _inputs(
    x: Tensor,
    theta: Tensor | None,
    beta: Tensor | None,
    first: Tensor | None,
    starts: Tensor | None,
) -> tuple:
    strides = (0, 0, 0, 0) if starts is None else starts.stride()
    return x, x.stride(), starts, strides, first, theta, beta


def _constants(x: Tensor, kind: str, signed: bool, tile: Tiling) -> dict[str, Any]:
    return {
        "KIND": kind,
        "SIGNED": signed,
        "CHUNK": tile.chunk,
        "ONE_CHUNK": x.shape[0] == tile.chunk,
        "ROWS": tile.rows,
        "COLS": tile.cols,
        "num_warps": tile.warps,
    }


def _grid(x: Tensor, tile: Tiling) -> tuple[int]:
    _, G, R, D = x.shape
    return (triton.cdiv(G * R, tile.rows) * triton.cdiv(D, tile.cols),)


def _empty_outputs(x: Tensor, keep_last: bool, keep_inner: bool) -> tuple[Tensor, Tensor, Tensor]:
    membrane = x.shape[1:]
    chunks = -(-x.shape[0] // tiling(x.shape, keep_inner).chunk)
    last = x.new_empty(membrane if keep_last else 0, dtype=torch.float32)
    inner = x.new_empty((chunks - 1 if keep_inner else 0, *membrane), dtype=torch.float32)
    return torch.empty_like(x), last, inner


def _like(parameter: Tensor | None, *leading: int) -> Tensor:
    """Room for gradients in float32; empty where there is no tensor."""
    if parameter is None:
        return torch.empty(0)
    return parameter.new_empty((*leading, *parameter.shape), dtype=torch.float32)


def _summed(parts: Tensor, parameter: Tensor | None) -> Tensor:
    return parts if parameter is None else parts.sum(0)


def _or_none(x: Tensor) -> Tensor | None:
    return x if x.numel() else None
