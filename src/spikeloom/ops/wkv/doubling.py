"""RWKV-4's mixing for all tokens at once: sums over 1, 2, 4, 8, ... tokens.

After the pass with distance n every place holds the sums A and B over the 2 n places up to it:

    S[j] = S[j] + exp(-n w) S[j - n]

log2(L) passes over tensors `[B, L, D]`, element by element, which torch.compile makes one program
each. Place 0 is the state that was handed in, place j the token j - 1. As in the specification,
sums are held in units of exp(p) with a p per place and channel, so that nothing overflows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeloom.ops.wkv.naive import EMPTY, nothing_read, read


def wkv(
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    bonus: Tensor,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Same arguments and results as `naive.wkv`."""
    dtype = torch.promote_types(v.dtype, torch.float32)
    keys, values, w, u = (x.to(dtype) for x in (k, v, decay, bonus))
    first = nothing_read(keys) if initial_state is None else initial_state
    own = (keys - keys.detach()).exp()  # 1, with the gradient of exp(k)
    sums = torch.stack([own * values, own], dim=2)  # A and B, [B, L, 2, D]
    sums = torch.cat([first[:, None, :2], sums], dim=1)
    p = torch.cat([first[:, 2:], keys], dim=1).detach()
    reach = None if starts is None else _reach(starts)
    n = 1
    while n < p.shape[1]:
        before = _back(p, n, EMPTY)
        if reach is not None:
            before = before.masked_fill(reach[..., None] < n, EMPTY)
        q = torch.maximum(p, before - n * w).detach()
        old, new = (before - n * w - q).exp(), (p - q).exp()
        sums, p = new[:, :, None] * sums + old[:, :, None] * _back(sums, n), q
        n *= 2
    heard = p[:, :-1]
    if starts is not None:
        heard = heard.masked_fill(starts[..., None], EMPTY)
    A, B = sums[:, :-1].unbind(2)
    out = read((A, B, heard), u + keys, values)
    return out.to(v.dtype), torch.cat([sums[:, -1], p[:, -1:]], dim=1)


def _back(x: Tensor, n: int, fill: float = 0.0) -> Tensor:
    """`x` `[B, 1 + L, ...]` of n places before."""
    return torch.cat([torch.full_like(x[:, :n], fill), x[:, :-n]], dim=1)


def _reach(starts: Tensor) -> Tensor:
    """How many places back the document of each place goes, `[B, 1 + L]`."""
    places = torch.arange(1, starts.shape[1] + 1, device=starts.device)
    begins = torch.where(starts, places, 0).cummax(1).values
    return torch.cat([torch.zeros_like(begins[:, :1]), places - begins], dim=1)
