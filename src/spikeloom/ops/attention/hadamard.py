"""The seed's spike-driven attention: only the diagonal of the state matrix is kept.

    m[t] = exp(g[t]) * m[t-1] + k[t] * v[t]          (elementwise)
    o[t] = q[t] * m[t]

That is SDSA with keys and queries of width 1 that are always 1, and `k * v` as its values.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor


def sdsa(
    form: ModuleType, q: Tensor, k: Tensor, v: Tensor, *memory: Tensor | None
) -> tuple[Tensor, Tensor]:
    """In the form that is given.

    Args:
        form: the module whose `sdsa` carries the state: `naive`, `chunked`, or the package itself,
            which takes the one that fits.
        q, k, v: `[B, H, L, K]`.
        memory: log decay `[B, H, L]` and, optionally, initial state `[B, H, 1, K]` and starts
            `[B, L]`, as in `naive.sdsa`.

    Returns:
        outputs `[B, H, L, K]` in the dtype of `v`, and the last state `[B, H, 1, K]`.
    """
    ones = torch.ones_like(q[..., :1])
    read, state = form.sdsa(ones, ones, k * v, *memory)
    return q * read, state
