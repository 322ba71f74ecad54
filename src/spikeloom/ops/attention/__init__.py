"""Causal spike-driven attention (SDSA).

`naive` is the specification and how a model decodes, `chunked` trains on any device, `fused` on a
GPU. `sdsa` takes the one that fits. `hadamard` is the seed's elementwise form, in any of them.
"""

from __future__ import annotations

import functools
import sys

import torch
from torch import Tensor

from spikeloom.ops.attention import chunked, naive

__all__ = ["sdsa"]


def sdsa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Same arguments and results as `naive.sdsa`: token by token, as Triton programs, or in chunks.

    On a GPU where the Triton programs cannot be had, one line on stderr says why.
    """
    if q.shape[2] == 1:
        return naive.sdsa(q, k, v, log_decay, initial_state, starts)
    if q.device.type == "cuda" and _fits((q.dtype, k.dtype, v.dtype), q.shape[-1], v.shape[-1]):
        from spikeloom.ops.attention import fused

        return fused.sdsa(q, k, v, log_decay, initial_state, starts)
    return chunked.sdsa(q, k, v, log_decay, initial_state, starts)


@torch.compiler.assume_constant_result  # settled, and said, while a graph is traced
def _fits(dtypes: tuple[torch.dtype, ...], key_width: int, value_width: int) -> bool:
    reason = _unfit(dtypes, key_width, value_width)
    if reason:
        _say_once(reason)
    return reason is None


def _unfit(dtypes: tuple[torch.dtype, ...], key_width: int, value_width: int) -> str | None:
    try:
        from spikeloom.ops.attention import fused
    except ImportError as error:
        return f"{error} (pip install triton)"
    return fused.unfit(dtypes, key_width, value_width)


@functools.cache
def _say_once(reason: str) -> None:
    print(f"spikeloom: SDSA runs in chunks, not as Triton programs: {reason}", file=sys.stderr)
