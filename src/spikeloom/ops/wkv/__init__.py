"""RWKV-4's mixing along the tokens, for the SpikeGPT peer.

`naive` is the specification and how a model decodes, `doubling` reads all tokens at once. `wkv`
takes the one that fits.
"""

from __future__ import annotations

from torch import Tensor

from spikeloom.ops.wkv import doubling, naive

__all__ = ["wkv"]


def wkv(
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    bonus: Tensor,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Same arguments and results as `naive.wkv`."""
    form = naive if k.shape[1] == 1 else doubling
    return form.wkv(k, v, decay, bonus, initial_state, starts)
