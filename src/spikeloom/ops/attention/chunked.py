"""SDSA in parallel over chunks of tokens: dense products inside, one state between.

Inside a chunk, `o_i = sum_{j<=i} exp(G_i - G_j) (q_i . k_j) v_j` with G the running sum of the log
decay; from the chunks before, `o_i += exp(G_i) q_i M`. The exponent is masked *before* the
exponential: above the diagonal `G_i - G_j` is positive and would overflow, and an infinity that is
masked afterwards still leaves NaN in the gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sdsa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Same arguments and results as `naive.sdsa`; `chunk` tokens are taken at a time.

    Scores inside a chunk are computed in the dtype of `q` (bf16 in mixed precision); decays, states
    and what passes between chunks are float32.
    """
    B, L = q.shape[0], q.shape[2]
    dtype = torch.promote_types(q.dtype, torch.float32)
    chunk = min(chunk, L)
    count = -(-L // chunk)
    q, k, v = (_split(x, chunk) for x in (q, k, v))  # [B, H, N, C, ·]
    decay = _split(log_decay.to(dtype)[..., None], chunk)[..., 0].cumsum(-1)  # [B, H, N, C]
    segment = _segments(starts, B, L, chunk, q.device)  # [B, 1, N, C], counted within the row

    with torch.autocast(q.device.type, enabled=False):
        inside = _inside(q, k, v, decay, segment)
        last = segment[..., -1:]
        to_end = torch.where(segment == last, decay[..., -1:] - decay, -torch.inf).exp()
        added = (k.to(dtype) * to_end[..., None]).transpose(-1, -2) @ v.to(dtype)
        before, state = _carry(added, decay[..., -1], segment, initial_state, count)
        entering = _entering(segment)
        reach = torch.where(segment == entering[..., None], decay, -torch.inf).exp()
        across = (q.to(dtype) * reach[..., None]) @ before
    out = inside + across
    return out.flatten(2, 3)[:, :, :L].to(v.dtype), state


def _split(x: Tensor, chunk: int) -> Tensor:
    """`[B, H, L, X]` to `[B, H, N, C, X]`, zeros behind the end (they add nothing to the state)."""
    x = F.pad(x, (0, 0, 0, -x.shape[2] % chunk))
    return x.unflatten(2, (-1, chunk))


def _segments(starts: Tensor | None, B: int, L: int, chunk: int, device: torch.device) -> Tensor:
    if starts is None:
        return torch.zeros(B, 1, -(-L // chunk), chunk, dtype=torch.long, device=device)
    running = starts.long().cumsum(-1)
    running = torch.cat([running, running[:, -1:].expand(-1, -L % chunk)], dim=-1)
    return running.unflatten(-1, (-1, chunk))[:, None]


def _inside(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, segment: Tensor) -> Tensor:
    C = q.shape[-2]
    causal = torch.ones(C, C, dtype=torch.bool, device=q.device).tril()
    seen = causal & (segment[..., :, None] == segment[..., None, :])
    exponent = (decay[..., :, None] - decay[..., None, :]).masked_fill(~seen, -torch.inf)
    scores = (q @ k.transpose(-1, -2)).to(decay.dtype) * exponent.exp()
    return (scores.to(v.dtype) @ v).to(decay.dtype)


def _entering(segment: Tensor) -> Tensor:
    """The segment that is open where a chunk begins, `[B, 1, N]`; 0 before the row."""
    return F.pad(segment[..., :-1, -1], (1, 0))


def _carry(
    added: Tensor, total: Tensor, segment: Tensor, initial_state: Tensor | None, count: int
) -> tuple[Tensor, Tensor]:
    """States that enter each chunk, `[B, H, N, K, V]`, and the one that leaves the last."""
    state = torch.zeros_like(added[:, :, 0]) if initial_state is None else initial_state
    whole = segment[..., -1] == _entering(segment)  # no document starts within the chunk
    keep = torch.where(whole, total, -torch.inf).exp()[..., None, None]
    states = []
    for n in range(count):
        states.append(state)
        state = state * keep[:, :, n] + added[:, :, n]
    return torch.stack(states, dim=2), state
