"""Neurons: the membrane forward in time, and its gradient backward in time.

Forward, for steps t = 0, 1, ... (both kinds; the equations of `spikeloom.ops.lif.naive`):

    v[t]  = beta * a[t-1] + x[t], kept within ± clip_membrane     membrane
    s[t]  = spike(v[t])                                           payload
    y[t]  = theta * s[t]            (LIF: y[t] = s[t])            what is sent
    a[t]  = v[t] - theta * s[t]     or v_reset where s[t] != 0    after the soft, the hard reset

with theta learned per channel (graded) or the constant v_threshold (LIF). Backward, from dy[t] and
the gradient da[t] that came back from step t + 1, with h = ds/dv the surrogate slope:

    ds[t] = theta * (dy[t] - da[t])  soft        ds[t] = theta * dy[t]                 hard
    dv[t] = da[t] + ds[t] * h[t]     soft        dv[t] = da[t] 1[s = 0] + ds[t] * h[t] hard
    dx[t] = dv[t]         dbeta += dv[t] * a[t-1]         da[t-1] = beta * dv[t]

(LIF: theta dy[t] is dy[t]), dv[t] being 0 where the clip held the membrane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikeloom.backends.weights import Array, Weights
from spikeloom.config import NeuronConfig

Pull = Callable[..., Array]  # from the gradient of a result to that of its argument

# h(u): slopes that stand in for the derivative of 1[u >= 0]; the table in spikeloom.ops.surrogate.
SLOPES: dict[str, Callable[[Array], Array]] = {
    "atan": lambda u: 1 / (1 + (np.pi * u) ** 2),
    "sigmoid": lambda u: 1 - np.tanh(2 * u) ** 2,
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
    """`d 1[s != 0] / dv`, a triangle of area 1 around the firing boundary b = fire_level - 1/2."""
    u, b = v / theta, c.fire_level - 0.5
    triangle = np.maximum(0, 2 / b - 4 / b**2 * np.abs(_size(u, c) - b))
    return triangle * (np.sign(u) if c.signed else 1) / theta


def _size(k: Array, c: NeuronConfig) -> Array:
    return np.abs(k) if c.signed else k


@dataclass
class Past:
    """What the scan remembers for the way back: per step, `[S, ..., D]`, and the last membrane."""

    v: Array  # as it meets the threshold
    s: Array  # payloads
    before: Array  # a[t-1]
    free: Array | bool  # where the clip did not hold it
    last: Array  # a[S-1], `[..., D]`


def scan(
    x: Array,
    theta: Array | float,
    beta: Array | float,
    c: NeuronConfig,
    initial_state: Array | None = None,
) -> Past:
    """The recurrence over the leading axis of `x` `[S, ..., D]`."""
    v, s, before = np.empty((3, *x.shape), x.dtype)
    a = np.zeros_like(x[0]) if initial_state is None else initial_state
    for t in range(len(x)):
        before[t] = a
        v[t] = beta * a + x[t]
        held = v[t] if c.clip_membrane is None else v[t].clip(-c.clip_membrane, c.clip_membrane)
        s[t] = spike(held, theta, c)
        a = held - theta * s[t] if c.reset == "soft" else np.where(s[t] != 0, c.v_reset, held)
    if c.clip_membrane is None:
        return Past(v, s, before, True, a)
    free = np.abs(v) <= c.clip_membrane
    return Past(v.clip(-c.clip_membrane, c.clip_membrane), s, before, free, a)


def scan_backward(
    past: Past,
    theta: Array | float,
    beta: Array | float,
    c: NeuronConfig,
    dy: Array,
    ds_rate: Array | float,
    dv_rate: Array | float,
) -> tuple[Array, Array, Array]:
    """`dx` `[S, ..., D]`, and `dtheta`, `dbeta` `[D]`.

    The firing-rate loss pulls on the payloads (`ds_rate`) or on the membrane (`dv_rate`).
    """
    soft, emitted = c.reset == "soft", theta if c.kind == "graded" else 1
    pulls = slope(past.v, theta, c)
    sent, dx, da = emitted * dy + ds_rate, np.empty_like(dy), np.zeros_like(dy[0])
    dreset = np.empty_like(dy)  # gradient of what the soft reset takes away, minus
    for t in reversed(range(len(dy))):
        dreset[t] = da if soft else 0
        ds = sent[t] - theta * dreset[t]
        dv = ds * pulls[t] + (da if soft else np.where(past.s[t] == 0, da, 0))
        dx[t] = (dv + (dv_rate[t] if isinstance(dv_rate, np.ndarray) else 0)) * _at(past.free, t)
        da = beta * dx[t]
    # s = spike(v / theta): what goes back through the slope reaches theta times -v / theta.
    through = (sent - theta * dreset) * pulls + dv_rate
    dtheta = past.s * (dy - dreset) - through * past.v / theta
    return dx, _channels(dtheta), _channels(dx * past.before)


def _at(free: Array | bool, t: int) -> Array | bool:
    return free[t] if isinstance(free, np.ndarray) else free


def _channels(x: Array) -> Array:
    """Sum over all axes but the channels `[D]`."""
    return x.reshape(-1, x.shape[-1]).sum(0)


def neuron(
    x: Array, w: Weights, name: str, c: NeuronConfig, memory: Weights | None = None
) -> tuple[Array, float, Pull]:
    """A population on `[T, B, L, D]`: what it sends, its firing rate, and the way back.

    Steps are the T of the step clock, or, where T = 1 and the membrane remembers, the L tokens:
    then `memory` (`recurrent.py`) holds the membrane. A wire (`kind: none`) sends its input, at
    rate 1.
    """
    if c.kind == "none":
        return x, 1.0, lambda dy, drate, grads: dy
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
            ds_rate = each * (np.sign(past.s) / c.fire_level if c.kind == "graded" else 1)
        back = scan_backward(past, theta, beta, c, np.moveaxis(dy, axis, 0), ds_rate, dv_rate)
        dx, dtheta, dbeta = np.moveaxis(back[0], 0, axis), *back[1:]
        grads[f"{name}.bias"] = _channels(dx)
        if c.kind == "graded":
            grads[f"{name}.log_theta"] = dtheta * theta
        if c.learn_beta:
            grads[f"{name}.raw_beta"] = dbeta * beta * (1 - beta)
        return dx

    return np.moveaxis(y, 0, axis), float(np.mean(past.s != 0)), pull


def constants(w: Weights, name: str, c: NeuronConfig) -> tuple[Any, Any]:
    """theta (`exp(log_theta)`, or v_threshold) and beta (`sigmoid(raw_beta)`, or the config's)."""
    theta = np.exp(w[f"{name}.log_theta"]) if c.kind == "graded" else c.v_threshold
    beta = 1 / (1 + np.exp(-w[f"{name}.raw_beta"])) if c.learn_beta else c.beta
    return theta, beta
