"""The membrane in time, over a leading axis S, and who computes it.

    v[t] = beta * a[t-1] + x[t], kept within ± clip_membrane
    s[t] = spike(v[t])
    a[t] = v[t] - theta * s[t]          or v_reset where s[t] != 0 (hard reset)

`naive` is the specification, on any device, differentiated by MLX. `metal.py` is the same in one
kernel forward and one back; it is taken on a GPU for scans of at least `LONG` steps, since the loop
builds a graph of all steps and the kernel does not.
"""

from __future__ import annotations

import mlx.core as mx

from spikeloom.backends.mlx.device import on_gpu
from spikeloom.backends.mlx.spikes import spike
from spikeloom.config import NeuronConfig

LONG = 8


def scan(
    x: mx.array,
    theta: mx.array,
    beta: mx.array,
    c: NeuronConfig,
    initial_state: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """Payloads `[S, ..., D]` and the last membrane `[..., D]`.

    Args:
        x: input with its bias, `[S, ..., D]`.
        theta: payload step (graded) or threshold (LIF), `[D]`.
        beta: leak, `[D]`.
        c: kind, levels, reset.
        initial_state: membrane after the step before the first, `[..., D]`; zeros if None.
    """
    a = mx.zeros_like(x[0]) if initial_state is None else initial_state
    if takes_metal(len(x)):
        from spikeloom.backends.mlx.metal import fused

        return fused(x, theta, beta, c, a)
    return naive(x, theta, beta, c, a)


def takes_metal(steps: int) -> bool:
    """Whether the Metal kernels compute a scan of so many steps."""
    return steps >= LONG and on_gpu() and mx.metal.is_available()


def naive(
    x: mx.array, theta: mx.array, beta: mx.array, c: NeuronConfig, a: mx.array
) -> tuple[mx.array, mx.array]:
    """The recurrence, step by step."""
    fire, payloads = spike(c), []
    for t in range(len(x)):
        v = beta * a + x[t]
        if c.clip_membrane is not None:
            v = mx.clip(v, -c.clip_membrane, c.clip_membrane)
        s = fire(v / theta if c.kind == "graded" else v - theta)
        a = v - theta * s if c.reset == "soft" else mx.where(s != 0, c.v_reset, v)
        payloads.append(s)
    return mx.stack(payloads), a
