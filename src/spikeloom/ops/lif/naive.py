"""The specification of both neurons, in plain torch: one loop over steps, autograd backward.

Every fast form (here, on a GPU, in NumPy, in C++) is tested against these functions.

LIF, for steps t = 0, 1, ...:

    v[t] = beta * v[t-1] + x[t]
    s[t] = 1 if v[t] >= v_threshold else 0
    soft reset: v[t] -= v_threshold * s[t]          hard reset: v[t] = v_reset where s[t]

Graded LIF, with payload step theta, lo = -levels (signed) or 0 (unsigned):

    v[t] = beta * v[t-1] + x[t]
    k[t] = clip(round_half_even(v[t] / theta), lo, levels)
    s[t] = k[t] if |k[t]| >= fire_level else 0      emitted: y[t] = theta * s[t]
    soft reset: v[t] -= theta * s[t]                hard reset: v[t] = v_reset where s[t] != 0

`fire_level = 1` is the integer LIF; with `levels = 1` it is the binary (unsigned) or ternary
(signed) LIF whose threshold is theta / 2; `beta = 0` has no memory. The gradient of s with respect
to v / theta is 1 where `window * fire_level <= |k| <= levels` (k before clipping, and not below
lo), else 0. A soft reset passes the gradient of its spike on, a hard reset passes none.

In other libraries' terms: SpikingJelly `LIFNode(tau=1/(1-beta), decay_input=False, v_reset=None)`
is the soft reset (its hard reset leaks towards `v_reset`, ours towards 0); snnTorch
`Leaky(beta, reset_mechanism="subtract")` resets one step late unless `reset_delay=False`, and skips
a spike while the residual of a soft reset is above the threshold; Norse's `lif_box` has
`beta = 1 - dt * tau_mem_inv` and scales its input by `dt * tau_mem_inv`; NIR has the hard reset.
On `v = v_threshold` SpikingJelly fires as we do, snnTorch and Norse do not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeloom.ops.surrogate import heaviside


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
) -> tuple[Tensor, Tensor]:
    """Leaky integrate-and-fire over the leading axis.

    Args:
        x: input current, `[S, ...]`.
        initial_state: membrane before the first step, `[...]`; zeros if None.
        beta: share of the membrane kept per step, a number or `[D]` (last axis).
        v_threshold: firing threshold, in units of `x`.
        v_reset: None for the soft reset, else the voltage of the hard reset (no gradient flows
            through the spike that triggers it; SpikingJelly: `detach_reset=True`).
        surrogate: see `spikeloom.ops.surrogate`.
        clip_membrane: if given, v is kept within ± this value before firing.
        starts: boolean `[S, ...]` (broadcast); where true, the membrane is 0 before that step.

    Returns:
        spikes `[S, ...]` of zeros and ones, and the membrane after the last step `[...]`.
    """
    v = torch.zeros_like(x[0]) if initial_state is None else initial_state
    spikes = []
    for t, current in enumerate(x.unbind()):  # unlike x[t], it costs the backward one pass
        v = _leak(v, beta, starts, t) + current
        if clip_membrane is not None:
            v = v.clamp(-clip_membrane, clip_membrane)
        s = heaviside(v - v_threshold, surrogate)
        v = v - v_threshold * s if v_reset is None else torch.where(s > 0, v_reset, v)
        spikes.append(s)
    return torch.stack(spikes), v


def graded_spike(
    v: Tensor,
    theta: Tensor,
    *,
    levels: int,
    fire_level: int,
    signed: bool,
    window: float = 0.5,
) -> Tensor:
    """Signed integer payloads `s` of one step (see the module's equations).

    Args:
        v: membrane, `[..., D]`.
        theta: payload step, positive, `[D]`.
        levels, fire_level, signed, window: as in the module's equations.

    Returns:
        `s`, `[..., D]`, integers held in the dtype of `v`; differentiable straight-through.
    """
    u = v / theta
    k = torch.round(u)
    size = k.abs() if signed else k
    clipped = k.clamp(-levels if signed else 0, levels)
    s = torch.where(size >= fire_level, clipped, torch.zeros_like(k))
    passes = ((size >= window * fire_level) & (size <= levels)).to(u.dtype)
    return (s - u * passes).detach() + u * passes


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
) -> tuple[Tensor, Tensor]:
    """Graded LIF over the leading axis.

    Args:
        x: input current, `[S, ..., D]`.
        theta: payload step, positive, `[D]`.
        initial_state: membrane before the first step, `[..., D]`; zeros if None.
        beta, v_reset, clip_membrane, starts: as in `lif`.
        levels, fire_level, signed, window: as in `graded_spike`.

    Returns:
        payloads `s` `[S, ..., D]` (integers in the dtype of `x`; the emission is `theta * s`) and
        the membrane after the last step `[..., D]`.
    """
    v = torch.zeros_like(x[0]) if initial_state is None else initial_state
    payloads = []
    for t, current in enumerate(x.unbind()):
        v = _leak(v, beta, starts, t) + current
        if clip_membrane is not None:
            v = v.clamp(-clip_membrane, clip_membrane)
        s = graded_spike(
            v, theta, levels=levels, fire_level=fire_level, signed=signed, window=window
        )
        v = v - theta * s if v_reset is None else torch.where(s != 0, v_reset, v)
        payloads.append(s)
    return torch.stack(payloads), v


def _leak(v: Tensor, beta: float | Tensor, starts: Tensor | None, t: int) -> Tensor:
    kept = beta * v
    return kept if starts is None else torch.where(starts[t], torch.zeros_like(kept), kept)
