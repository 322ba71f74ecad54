"""Specification of the recurrent LIF layer: neurons that hear their own spikes of the step before.

For steps t = 0, 1, ..., with a recurrent weight W `[D, D]`:

    v[t] = beta * v[t-1] + x[t] + W s[t-1]
    s[t] = 1 if v[t] >= v_threshold else 0
    soft reset: v[t] -= v_threshold * s[t]

Backward is autograd through time, with a surrogate slope in place of the spike's derivative; the
reset and the recurrent product both pass the gradient of their spike on. A gain per neuron needs no
parameter of its own: a gain g on neuron i is row i of W and channel i of x times g.

`recurrent_unit`, its dense twin, is the same recurrence with the surrogate's own proxy g
(`spikeloom.ops.surrogate`) in place of the step: s[t] = g(v[t] - v_threshold), between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeloom.ops.surrogate import PROXIES, heaviside

State = tuple[Tensor, Tensor]
"""Membrane and spikes after a step, both `[B, D]`."""


def recurrent_lif(
    x: Tensor,
    weight: Tensor,
    initial_state: State | None = None,
    *,
    beta: float | Tensor,
    v_threshold: float = 1.0,
    surrogate: str = "atan",
    starts: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Recurrent leaky integrate-and-fire over the leading axis.

    Args:
        x: input current, `[S, B, D]`, S >= 1.
        weight: recurrent weight, `[D, D]`: row i says what neuron i hears.
        initial_state: membrane and spikes before the first step; zeros if None.
        beta: share of the membrane kept per step, a number or `[D]`.
        v_threshold: firing threshold, in units of `x`.
        surrogate: see `spikeloom.ops.surrogate`.
        starts: boolean `[S, B, 1]`; where true, membrane and spikes are 0 before that step.

    Returns:
        spikes `[S, B, D]` of zeros and ones, and membrane and spikes after the last step.
    """
    fire = partial(heaviside, surrogate=surrogate)
    return _recur(x, weight, initial_state, beta, v_threshold, starts, fire)


def recurrent_unit(
    x: Tensor,
    weight: Tensor,
    initial_state: State | None = None,
    *,
    beta: float | Tensor,
    v_threshold: float = 1.0,
    surrogate: str = "atan",
    starts: Tensor | None = None,
) -> tuple[Tensor, State]:
    """The dense twin: arguments and results of `recurrent_lif`, outputs between 0 and 1."""
    return _recur(x, weight, initial_state, beta, v_threshold, starts, PROXIES[surrogate])


def _recur(
    x: Tensor,
    weight: Tensor,
    initial_state: State | None,
    beta: float | Tensor,
    v_threshold: float,
    starts: Tensor | None,
    fire: Callable[[Tensor], Tensor],
) -> tuple[Tensor, State]:
    quiet = torch.zeros_like(x[0])
    v, s = (quiet, quiet) if initial_state is None else initial_state
    spikes = []
    for t in range(len(x)):
        if starts is not None:
            v, s = (torch.where(starts[t], quiet, kept) for kept in (v, s))
        v = beta * v + x[t] + F.linear(s, weight)
        s = fire(v - v_threshold)
        v = v - v_threshold * s
        spikes.append(s)
    return torch.stack(spikes), (v, s)
