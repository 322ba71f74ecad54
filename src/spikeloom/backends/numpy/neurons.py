"""Neurons: the membrane forward in time, and its gradient backward in time.

Forward, for steps t = 0, 1, ... (both kinds; the equations of `spikeloom.ops.lif.naive`):

    v[t]  = beta * a[t-1] + x[t], kept within ± clip_membrane     membrane
    s[t]  = spike(v[t])                                           payload
    y[t]  = theta * s[t]            (LIF: y[t] = s[t])            what is sent
    a[t]  = v[t] - theta * s[t]     or v_reset where s[t] != 0    after the soft, the hard reset

with theta learned per channel (graded) or the constant v_threshold (LIF). Backward, from dy[t] and
the gradient da[t] that came back from step t + 1, with h = ds/dv the surrogate slope:

    dx[t]   = dv[t] = theta h[t] dy[t] + keep[t] da[t]        (LIF: h[t] dy[t] + ...)
    keep[t] = 1 - theta h[t] (soft reset)  or  1 where s[t] = 0, else 0 (hard reset)
    da[t-1] = beta dv[t]          dbeta += dv[t] a[t-1]

and dx[t] = 0 where the clip held the membrane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikeloom.backends.numpy.layers import Pull, channels, context_gain
from spikeloom.backends.weights import Array, Weights
from spikeloom.config import NeuronConfig

# h(u): slopes that stand in for the derivative of 1[u >= 0]; the table in spikeloom.ops.surrogate.
SLOPES: dict[str, Callable[[Array], Array]] = {
    "atan": lambda u: 1 / (1 + (np.pi * u) ** 2),
    "sigmoid": lambda u: 0.5 - 0.5 * np.tanh(u) ** 2,
    "fast_sigmoid": lambda u: 1 / (1 + 2 * np.abs(u)) ** 2,
    "piecewise_quadratic": lambda u: np.maximum(0, 1 - np.abs(u)),
    "straight_through": lambda u: (np.abs(u) <= 0.5).astype(u.dtype),
}


def spike(v: Array, theta: Array | float, c: NeuronConfig) -> Array:
    """Payloads `s` of a membrane `[..., D]`, integers in its dtype."""
    if c.kind == "lif":
        return (v >= c.v_threshold).astype(v.dtype)
    k = np.rint(v / theta)  # halves to even
    size = np.abs(k) if c.signed else k
    return np.where(size >= c.fire_level, np.clip(k, -c.levels, c.levels), v.dtype.type(0))


def slope(v: Array, theta: Array | float, c: NeuronConfig) -> Array:
    """`h = ds/dv`: a surrogate (LIF), or straight-through inside the window (graded)."""
    if c.kind == "lif":
        return SLOPES[c.surrogate](v - c.v_threshold)
    size = _size(np.rint(v / theta), c)
    return ((size >= c.window * c.fire_level) & (size <= c.levels)) / theta


def rate_slope(v: Array, theta: Array, c: NeuronConfig) -> Array:
    """Slope of the rate, a triangle of area 1 around the firing boundary b = rate_level - 1/2."""
    u, b = v / theta, c.rate_level - 0.5
    triangle = np.maximum(0, 2 / b - 4 / b**2 * np.abs(_size(u, c) - b))
    return triangle * (np.sign(u) if c.signed else 1) / theta


def _size(k: Array, c: NeuronConfig) -> Array:
    return np.abs(k) if c.signed else k


@dataclass
class Past:
    """What the scan remembers for the way back: per step, `[S, ..., D]`, and the last membrane."""

    v: Array  # as it meets the threshold
    s: Array  # payloads
    before: Array | None  # a[t-1], where the leak is learned
    free: Array | None  # where the clip did not hold it, if there is one
    last: Array  # a[S-1], `[..., D]`


def scan(
    x: Array, theta: Any, beta: Any, c: NeuronConfig, initial_state: Array | None = None
) -> Past:
    """The recurrence over the leading axis of `x` `[S, ..., D]`."""
    v, s = np.empty((2, *x.shape), x.dtype)
    before = np.empty_like(v) if c.learn_beta else None
    clip = c.clip_membrane
    free = None if clip is None else np.empty(x.shape, bool)
    a = np.zeros_like(x[0]) if initial_state is None else initial_state
    for t in range(len(x)):
        if before is not None:
            before[t] = a
        v[t] = beta * a + x[t]
        if clip is not None and free is not None:
            free[t] = np.abs(v[t]) <= clip
            np.clip(v[t], -clip, clip, out=v[t])
        s[t] = spike(v[t], theta, c)
        a = v[t] - theta * s[t] if c.reset == "soft" else np.where(s[t] != 0, c.v_reset, v[t])
    return Past(v, s, before, free, a)


def scan_backward(
    past: Past, theta: Any, beta: Any, c: NeuronConfig, dy: Array, ds_rate: Any, dv_rate: Any
) -> tuple[Array, Array | None, Array | None]:
    """`dx` `[S, ..., D]`, and `dtheta`, `dbeta` `[D]` where they are learned.

    The firing-rate loss pulls on the payloads (`ds_rate`) or on the membrane (`dv_rate`).
    """
    soft, graded, h = c.reset == "soft", c.kind == "graded", slope(past.v, theta, c)
    through = ((theta if graded else 1) * dy + ds_rate) * h + dv_rate
    keeps = 1 - theta * h if soft else past.s == 0
    dx, da = through if past.free is None else through * past.free, np.zeros_like(dy[0])
    for t in reversed(range(len(dy))):
        dx[t] += keeps[t] * da if past.free is None else keeps[t] * past.free[t] * da
        da = beta * dx[t]
    dbeta = None if past.before is None else channels(dx * past.before)
    if not graded:
        return dx, None, dbeta
    # s = spike(v / theta): what goes back through the slope reaches theta times -v / theta.
    da = np.concatenate([beta * dx[1:], np.zeros_like(dx[:1])]) if soft else 0
    dv = ((theta * (dy - da)) + ds_rate) * h + dv_rate
    return dx, channels(past.s * (dy - da) - dv * past.v / theta), dbeta


def neuron(
    x: Array, w: Weights, name: str, c: NeuronConfig, memory: Weights | None = None
) -> tuple[Array, float, Pull]:
    """A population on `[T, B, L, D]`: what it sends, its firing rate, and the way back.

    Steps are the T of the step clock, or, where T = 1 and the membrane remembers, the L tokens:
    then `memory` (`recurrent.py`) holds the membrane. A wire (`kind: none`) sends its input, at
    rate 1; what `gain_rank` asks for comes before the bias.
    """
    if c.kind == "none":
        return x, 1.0, lambda dy, drate, grads: dy
    x, gain_pull = context_gain(x, w, f"{name}.gain") if c.gain_rank else (x, None)
    theta, beta = constants(w, name, c)
    along_tokens = len(x) == 1 and not c.memoryless
    axis, memory = (2, memory) if along_tokens else (0, None)
    initial = None if memory is None else memory.get(name)
    past = scan(np.moveaxis(x + w[f"{name}.bias"], axis, 0), theta, beta, c, initial)
    if memory is not None:
        memory[name] = past.last
    y = past.s * theta if c.kind == "graded" else past.s
    counted = len(x) == 1 and c.memoryless and c.kind == "graded" and c.clip_membrane is None

    def pull(dy: Array, drate: float, grads: Weights) -> Array:
        each, ds_rate, dv_rate = x.dtype.type(drate / x.size), 0.0, 0.0
        if counted:  # the rate is a count: its own slope at the firing boundary
            dv_rate = each * rate_slope(past.v, theta, c)
        else:  # its slope is that of the mean payload, on the scale of one spike
            ds_rate = each * (np.sign(past.s) / c.rate_level if c.kind == "graded" else 1)
        back = scan_backward(past, theta, beta, c, np.moveaxis(dy, axis, 0), ds_rate, dv_rate)
        dx, dtheta, dbeta = np.moveaxis(back[0], 0, axis), *back[1:]
        grads[f"{name}.bias"] = channels(dx)
        if dtheta is not None:
            grads[f"{name}.log_theta"] = dtheta * theta
        if dbeta is not None:
            grads[f"{name}.raw_beta"] = dbeta * beta * (1 - beta)
        return dx if gain_pull is None else gain_pull(dx, grads)

    fired = np.abs(past.s) >= (c.rate_level if c.kind == "graded" else 1)
    return np.moveaxis(y, 0, axis), float(np.mean(fired)), pull


def constants(w: Weights, name: str, c: NeuronConfig) -> tuple[Any, Any]:
    """theta (`exp(log_theta)`, or v_threshold) and beta (`sigmoid(raw_beta)`, or the config's)."""
    theta = np.exp(w[f"{name}.log_theta"]) if c.kind == "graded" else c.v_threshold
    beta = 1 / (1 + np.exp(-w[f"{name}.raw_beta"])) if c.learn_beta else c.beta
    return theta, beta
