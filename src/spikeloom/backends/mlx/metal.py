"""The membrane in time as two Metal kernels, forward and back: one thread per channel of a row.

The equations are those of `scan.py`. A thread walks over the S steps with its membrane in a
register. Forward keeps `raw[t] = beta * a[t-1] + x[t]`, before the clip; from it the way back finds
everything else again. With da the gradient of a[t] and h = ds/du the slope of the spike:

    ds   = ds[t] - theta * da        (soft reset; hard: ds[t])
    dv   = da (soft), da where s[t] = 0 (hard)  +  ds * h * du/dv
    dx[t] = dv, 0 where the clip held the membrane
    da   = beta * dx[t]      dbeta += dx[t] * a[t-1]
    dtheta += ds * h * du/dtheta  -  s[t] * da (soft)

`programs` writes the source with a neuron's constants in it, `launch` compiles and runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from zlib import crc32

import mlx.core as mx

from spikeloom.config import NeuronConfig

THREADS = 256  # of a threadgroup

# The same slopes as `spikes.SLOPES`, in Metal.
SLOPES = {
    "atan": "1.0f / (1.0f + 9.8696044f * u * u)",
    "sigmoid": "0.5f - 0.5f * metal::tanh(u) * metal::tanh(u)",
    "fast_sigmoid": "1.0f / ((1.0f + 2.0f * metal::abs(u)) * (1.0f + 2.0f * metal::abs(u)))",
    "piecewise_quadratic": "metal::max(0.0f, 1.0f - metal::abs(u))",
    "straight_through": "metal::abs(u) <= 0.5f ? 1.0f : 0.0f",
}

NEURON = """
inline float size_of(float k) {{ return {size}; }}
inline float drive(float v, float theta) {{ return {drive}; }}
inline float spike(float u) {{ {spike} }}
inline float slope(float u) {{ {slope} }}
inline float clipped(float raw) {{ return {clipped}; }}
inline bool is_free(float raw) {{ return {is_free}; }}
inline float after(float v, float s, float theta) {{ return {after}; }}
"""

FORWARD = """
    uint i = thread_position_in_grid.x;
    uint steps = x_shape[0], width = x_shape[1], d = i % theta_shape[0];
    float a = initial[i];
    for (uint t = 0; t < steps; ++t) {
        uint at = t * width + i;
        float r = beta[d] * a + x[at], v = clipped(r);
        float fired = spike(drive(v, theta[d]));
        raw[at] = r;
        s[at] = fired;
        a = after(v, fired, theta[d]);
    }
    last[i] = a;
"""

BACKWARD = """
    uint i = thread_position_in_grid.x;
    uint steps = raw_shape[0], width = raw_shape[1], d = i % theta_shape[0];
    float da = dlast[i], th = theta[d], sum_theta = 0.0f, sum_beta = 0.0f;
    for (uint t = steps; t-- > 0;) {
        uint at = t * width + i;
        float r = raw[at], v = clipped(r), u = drive(v, th), fired = spike(u), h = slope(u);
        float before = initial[i];
        if (t > 0) {
            float earlier = clipped(raw[at - width]);
            before = after(earlier, spike(drive(earlier, th)), th);
        }
        float dfired = ds[at]{soft_ds};
        float dv = {keeps} + dfired * h{du_dv};
        sum_theta += {dtheta};
        float dr = is_free(r) ? dv : 0.0f;
        dx[at] = dr;
        sum_beta += dr * before;
        da = beta[d] * dr;
    }
    dinitial[i] = da;
    dtheta[i] = sum_theta;
    dbeta[i] = sum_beta;
"""


@dataclass(frozen=True)
class Program:
    """A kernel: its names and text, as `mx.fast.metal_kernel` takes them."""

    name: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    source: str
    header: str


@lru_cache
def programs(c: NeuronConfig) -> tuple[Program, Program]:
    """The kernels of a neuron, forward and back."""
    graded, soft = c.kind == "graded", c.reset == "soft"
    drive_back = "-v / (th * th)" if graded else "-1.0f"
    fills = {
        "{soft_ds}": " - th * da" if soft else "",
        "{keeps}": "da" if soft else "(fired == 0.0f ? da : 0.0f)",
        "{du_dv}": " / th" if graded else "",
        "{dtheta}": f"dfired * h * ({drive_back})" + (" - fired * da" if soft else ""),
    }
    backward = BACKWARD
    for hole, text in fills.items():
        backward = backward.replace(hole, text)
    header, name = _neuron(c), f"spikeloom_{c.kind}_{c.reset}_{crc32(repr(c).encode()):08x}"
    return (
        Program(
            f"{name}_forward",
            ("x", "theta", "beta", "initial"),
            ("s", "last", "raw"),
            FORWARD,
            header,
        ),
        Program(
            f"{name}_backward",
            ("raw", "theta", "beta", "initial", "ds", "dlast"),
            ("dx", "dtheta", "dbeta", "dinitial"),
            backward,
            header,
        ),
    )


def _neuron(c: NeuronConfig) -> str:
    """The functions of a neuron, with its constants written out."""
    window = f"{_literal(c.window * c.fire_level)} <= k && k <= {_literal(c.levels)}"
    low = -c.levels
    graded = c.kind == "graded"
    k = "float k = size_of(metal::rint(u));"
    clip = None if c.clip_membrane is None else _literal(c.clip_membrane)
    kept = f"metal::min(metal::max(metal::rint(u), {_literal(low)}), {_literal(c.levels)})"
    return NEURON.format(
        size="metal::abs(k)" if c.signed else "k",
        drive="v / theta" if graded else "v - theta",
        spike=f"{k} return k >= {_literal(c.fire_level)} ? {kept} : 0.0f;"
        if graded
        else "return u >= 0.0f ? 1.0f : 0.0f;",
        slope=f"{k} return {window} ? 1.0f : 0.0f;" if graded else f"return {SLOPES[c.surrogate]};",
        clipped="raw" if clip is None else f"metal::min(metal::max(raw, -{clip}), {clip})",
        is_free="true" if clip is None else f"metal::abs(raw) <= {clip}",
        after="v - theta * s" if c.reset == "soft" else f"s != 0.0f ? {_literal(c.v_reset)} : v",
    )


def _literal(value: float) -> str:
    return f"({float(value)!r}f)"


def fused(
    x: mx.array, theta: mx.array, beta: mx.array, c: NeuronConfig, initial_state: mx.array
) -> tuple[mx.array, mx.array]:
    """`scan.scan` on a GPU: payloads `[S, ..., D]` and the last membrane `[..., D]`, float32."""
    flat = x.reshape(len(x), -1)
    s, last, _ = _differentiable(c)(flat, theta, beta, initial_state.reshape(-1))
    return s.reshape(x.shape), last.reshape(x.shape[1:])


@lru_cache
def _differentiable(c: NeuronConfig) -> Any:
    """Forward on `[S, N]`, with the way back as its gradient."""
    forward, backward = programs(c)

    @mx.custom_function
    def scan(x: mx.array, theta: mx.array, beta: mx.array, initial: mx.array) -> Any:
        shapes = [x.shape, initial.shape, x.shape]
        return tuple(launch(forward, [x, theta, beta, initial], shapes))

    @scan.vjp
    def scan_back(primals: Any, cotangents: Any, outputs: Any) -> Any:
        (x, theta, beta, initial), (ds, dlast, _), (_, _, raw) = primals, cotangents, outputs
        shapes = [x.shape, initial.shape, initial.shape, initial.shape]
        given = [raw, theta, beta, initial, ds, dlast]
        dx, dtheta, dbeta, dinitial = launch(backward, given, shapes)
        channels = [g.reshape(-1, len(theta)).sum(0) for g in (dtheta, dbeta)]
        return dx, *channels, dinitial

    return scan


def launch(program: Program, inputs: list[mx.array], shapes: list[Any]) -> list[mx.array]:
    """Run a program, a thread per column of its first input `[S, N]`; float32 results."""
    grid, group = threads(inputs[0].shape)
    return list(
        _kernel(program)(
            inputs=inputs,
            grid=grid,
            threadgroup=group,
            output_shapes=shapes,
            output_dtypes=[mx.float32] * len(shapes),
        )
    )


def threads(shape: tuple[int, ...]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Grid and threadgroup, in threads, for `[S, N]`: N threads, not rounded up."""
    return (shape[1], 1, 1), (min(THREADS, shape[1]), 1, 1)


@lru_cache
def _kernel(program: Program) -> Any:
    return mx.fast.metal_kernel(
        name=program.name,
        input_names=list(program.input_names),
        output_names=list(program.output_names),
        source=program.source,
        header=program.header,
    )
