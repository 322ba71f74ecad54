"""RWKV-4's mixing of values along the tokens: the recurrence, one token at a time.

Per channel, with a decay w > 0 and a bonus u for the token itself:

    out[t] = (A[t-1] + exp(u + k[t]) v[t]) / (B[t-1] + exp(u + k[t]))
    A[t] = exp(-w) A[t-1] + exp(k[t]) v[t]          B[t] = exp(-w) B[t-1] + exp(k[t])

(Peng et al. 2023, arXiv 2305.13048, equations 16 and 19 to 24; A = B = 0 where a document starts).
The exponentials overflow, so the state holds A and B in units of exp(p), p the largest exponent in
them. Numbers p cancel in the result and carry no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

EMPTY = -1e30
"""The exponent p of sums that hold nothing; finite, because infinities differ by NaN."""


def wkv(
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    bonus: Tensor,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The specification, O(1) memory per token: this is also how a model decodes.

    Args:
        k, v: keys and values, `[B, L, D]`.
        decay: w, positive, per token `[D]`.
        bonus: u, `[D]`.
        initial_state: A, B and p, `[B, 3, D]` in float32; nothing read if None.
        starts: boolean `[B, L]`; where true, A and B are emptied before that token.

    Returns:
        outputs `[B, L, D]` in the dtype of `v`, and the last state in float32 (float64 if the
        inputs are).
    """
    dtype = torch.promote_types(v.dtype, torch.float32)
    keys, values, w, u = (x.to(dtype) for x in (k, v, decay, bonus))
    state = nothing_read(keys) if initial_state is None else initial_state
    outputs = []
    for t in range(k.shape[1]):
        if starts is not None:
            state = torch.where(starts[:, t, None, None], nothing_read(keys), state)
        key, value = keys[:, t], values[:, t]
        outputs.append(read(state.unbind(1), u + key, value))
        state = _advanced(state, key, value, w)
    return torch.stack(outputs, dim=1).to(v.dtype), state


def nothing_read(k: Tensor) -> Tensor:
    """The state before the first token, `[B, 3, D]`."""
    nothing = torch.zeros_like(k[:, 0])
    return torch.stack([nothing, nothing, nothing + EMPTY], dim=1)


def read(sums: tuple[Tensor, ...], key: Tensor, value: Tensor) -> Tensor:
    """What a token gets from `sums` A, B, p and from itself, whose key has the bonus in it."""
    A, B, p = sums
    q = torch.maximum(p, key).detach()
    old, new = (p - q).exp(), (key - q).exp()
    return (old * A + new * value) / (old * B + new)


def _advanced(state: Tensor, key: Tensor, value: Tensor, w: Tensor) -> Tensor:
    A, B, p = state.unbind(1)
    q = torch.maximum(p - w, key).detach()
    old, new = (p - w - q).exp(), (key - q).exp()
    return torch.stack([old * A + new * value, old * B + new, q], dim=1)
