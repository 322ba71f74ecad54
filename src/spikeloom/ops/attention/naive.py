"""Causal spike-driven self-attention (SDSA) with decay: the recurrence, one token at a time.

Per head, with a state matrix M of K x V and a log decay g <= 0:

    M[t] = exp(g[t]) * M[t-1] + k[t] v[t]^T          (M[t-1] = 0 where a document starts)
    o[t] = q[t] M[t]

Linear attention (Katharopoulos et al. 2020) with decay (RetNet, Sun et al. 2023; Mamba-2, Dao and
Gu 2024 when g depends on the token). The seed's Hadamard form keeps only the diagonal of M.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sdsa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The specification, O(1) memory per token: this is also how a model decodes.

    Args:
        q, k: queries and keys, `[B, H, L, K]`.
        v: values, `[B, H, L, V]`.
        log_decay: `[B, H, L]`, at most 0.
        initial_state: `[B, H, K, V]` in float32; zeros if None.
        starts: boolean `[B, L]`; where true, the state is emptied before that token.

    Returns:
        outputs `[B, H, L, V]` in the dtype of `v`, and the last state in float32 (float64 if the
        inputs are).
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    B, H, L, K = q.shape
    if initial_state is None:
        state = torch.zeros(B, H, K, v.shape[-1], dtype=dtype, device=q.device)
    else:
        state = initial_state
    outputs = []
    for t in range(L):
        state = state * log_decay[:, :, t, None, None].to(dtype).exp()
        if starts is not None:
            state = torch.where(starts[:, t, None, None, None], torch.zeros_like(state), state)
        state = state + k[:, :, t, :, None].to(dtype) * v[:, :, t, None, :].to(dtype)
        outputs.append((q[:, :, t, None, :].to(dtype) @ state).squeeze(-2))
    return torch.stack(outputs, dim=2).to(v.dtype), state
