"""The memoryless graded neuron in Triton, with what stands right before it: one pass each way.

    v = x + bias    or    v = weight * x / rms(x) + bias    or    v = relu(x)^2 + bias
    y = theta * s(v / theta)        theta = exp(log_theta)  (`spikeloom.ops.lif.memoryless`)

Rows are tokens, `[N, D]` contiguous. A program takes ROWS rows at a time; the backward programs
walk through many, hold their sums for the parameters in registers and write one row `[D]` each, to
be added up in a fixed order. Without a norm a program sees COLS channels, with one all of them.

torch.compile hands floats over as float64, and would take one made of a symbol for an integer: all
numbers but `eps` are therefore integers, and what is computed from them is float32. `dead_zone`
`[2]`, where it is given, holds what would follow from `fire_level` and `opens_at`; the rate stays
that of `fire_level`.
"""

import triton
import triton.language as tl

from spikeloom.ops.lif.triton_step import magnitude, rounded


@triton.jit(do_not_specialize=["fire_level"])
def emission_forward(
    x, weight, bias, log_theta, dead_zone, y, scale, fired, N, D, eps, levels, fire_level,
    SQUARED: tl.constexpr, SIGNED: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Emissions, `scale` `[N]` = 1 / rms(x), and how often each program's rows fired."""
    levels, eps = tl.cast(levels, tl.float32), tl.cast(eps, tl.float32)
    boundary = fire_level - 0.5
    fires_at = boundary
    if dead_zone is not None:
        fires_at = tl.load(dead_zone)
    row, column, exists = _rows(tl.program_id(0) * ROWS, N, D, ROWS, COLS)
    at = row.to(tl.int64) * D + column
    here = column < D
    step = tl.exp(tl.load(log_theta + column, here, other=0.0).to(tl.float32))
    v = tl.load(x + at, exists, other=0.0).to(tl.float32)
    if SQUARED:
        v = tl.maximum(v, 0.0)
        v = v * v
    if weight is not None:
        rms = tl.rsqrt(tl.sum(v * v, axis=1, keep_dims=True) / D + eps)
        tl.store(scale + row, rms, row < N)
        v = v * rms * tl.load(weight + column, here, other=0.0).to(tl.float32)
    v += tl.load(bias + column, here, other=0.0).to(tl.float32)
    k = rounded(v * tl.div_rn(1.0, step), levels)
    s = _payload(k, fires_at, SIGNED)
    tl.store(y + at, (step * s).to(y.dtype.element_ty), exists)
    count = tl.sum(tl.where(exists & (magnitude(k, SIGNED) > boundary), 1.0, 0.0))
    tl.store(fired + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), count)


@triton.jit(do_not_specialize=["fire_level", "opens_at"])
def emission_backward(
    x, weight, bias, log_theta, dead_zone, scale, grad, grad_rate, grad_x, sums,
    N, D, levels, fire_level, opens_at,
    SQUARED: tl.constexpr, SIGNED: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Gradient of x, and per program those of log_theta, bias and weight: `sums` `[P, 3, D]`."""
    levels = tl.cast(levels, tl.float32)
    boundary = fire_level - 0.5
    fires_at, opens = boundary, opens_at - 0.5
    if dead_zone is not None:
        fires_at, opens = tl.load(dead_zone), tl.load(dead_zone + 1)
    column = tl.program_id(1) * COLS + tl.arange(0, COLS)[None, :]
    here = column < D
    step = tl.exp(tl.load(log_theta + column, here, other=0.0).to(tl.float32))
    inverse = tl.div_rn(1.0, step)
    shift = tl.load(bias + column, here, other=0.0).to(tl.float32)
    gain = step
    if weight is not None:
        gain = tl.load(weight + column, here, other=0.0).to(tl.float32)
    by_fired = tl.load(grad_rate).to(tl.float32) / (tl.cast(N, tl.float32) * D)
    zeros = tl.zeros((ROWS, COLS), tl.float32)
    by_theta, by_bias, by_weight = zeros, zeros, zeros
    for start in range(tl.program_id(0) * ROWS, N, tl.num_programs(0) * ROWS):
        row, _, exists = _rows(start, N, D, ROWS, COLS)
        at = row.to(tl.int64) * D + column
        g = tl.load(grad + at, exists, other=0.0).to(tl.float32)
        unit = tl.load(x + at, exists, other=0.0).to(tl.float32)
        v = unit + shift
        if SQUARED:
            unit = tl.maximum(unit, 0.0)
            v = unit * unit + shift
        if weight is not None:
            rms = tl.load(scale + row, row < N, other=0.0)
            unit = unit * rms
            v = unit * gain + shift
        u = v * inverse
        k = rounded(u, levels + 1)
        size = magnitude(k, SIGNED)
        by_u = tl.where((size > opens) & (size < levels + 0.5), g * step, 0.0)
        by_u += _rate_slope(u, boundary, SIGNED) * by_fired
        by_v = tl.where(exists, by_u * inverse, 0.0)
        s = _payload(tl.minimum(tl.maximum(k, -levels), levels), fires_at, SIGNED)
        by_theta += g * s - by_v * u
        by_bias += by_v
        if weight is not None:
            by_weight += by_v * unit
            by_v = by_v * gain
            along = tl.sum(by_v * unit, axis=1, keep_dims=True) / D
            speaks = tl.max(tl.abs(unit), axis=1, keep_dims=True) > 0.0  # as in model/norm.py
            by_v = tl.where(speaks, (by_v - along * unit) * rms, 0.0)
        if SQUARED:
            by_v = by_v * (2.0 * unit)
        tl.store(grad_x + at, by_v.to(grad_x.dtype.element_ty), exists)
    at = sums + tl.program_id(0).to(tl.int64) * 3 * D + column
    tl.store(at, tl.sum(by_theta * step, axis=0)[None, :], here)
    tl.store(at + D, tl.sum(by_bias, axis=0)[None, :], here)
    tl.store(at + 2 * D, tl.sum(by_weight, axis=0)[None, :], here)


@triton.jit
def _rows(start, N, D, ROWS: tl.constexpr, COLS: tl.constexpr):
    row = start + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLS + tl.arange(0, COLS)[None, :]
    return row, column, (row < N) & (column < D)


@triton.jit
def _payload(k, fires_at, SIGNED: tl.constexpr):
    return tl.where(magnitude(k, SIGNED) > fires_at, k, 0.0)


@triton.jit
def _rate_slope(u, boundary, SIGNED: tl.constexpr):
    """Triangle of area 1 around the firing boundary, pointing away from zero."""
    distance = tl.abs(magnitude(u, SIGNED) - boundary)
    slope = tl.maximum(2.0 / boundary - distance * (4.0 / (boundary * boundary)), 0.0)
    if SIGNED:
        slope = tl.where(u < 0.0, -slope, slope)
    return slope
