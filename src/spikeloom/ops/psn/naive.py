"""The sliding parallel spiking neuron, one step at a time: a membrane that nothing resets.

    h[t] = taps[0] x[t] + taps[1] x[t-1] + ... + taps[k-1] x[t-k+1]
    s[t] = 1 if h[t] >= v_threshold else 0

(Fang et al. 2023, arXiv 2304.12760, sliding PSN; x = 0 before the first step and before the start
of a document). The spike does not feed back, so that all steps can be taken at once (`parallel`).
"""

from __future__ import annotations

import torch
from torch import Tensor


def sliding_membrane(
    x: Tensor,
    taps: Tensor,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The membrane h over the leading axis; the spike is `spikeloom.ops.surrogate.heaviside`.

    Args:
        x: input current, `[S, ...]`.
        taps: weights of this step and the k - 1 before it, `[k]`, k >= 2.
        initial_state: the k - 1 inputs before the first step, oldest first, `[k - 1, ...]`; zeros
            if None.
        starts: boolean `[S, ...]` (broadcast); where true, earlier inputs are forgotten.

    Returns:
        h, `[S, ...]`, and the last k - 1 inputs, oldest first.
    """
    k = len(taps)
    kept = [torch.zeros_like(x[0])] * (k - 1)
    if initial_state is not None:
        kept = list(initial_state.unbind())
    membranes = []
    for t, current in enumerate(x.unbind()):
        if starts is not None:
            kept = [torch.where(starts[t], torch.zeros_like(old), old) for old in kept]
        kept = [*kept, current]
        newest_first = torch.stack(kept[::-1], dim=-1)
        membranes.append((newest_first * taps).sum(-1))
        kept = kept[1:]
    return torch.stack(membranes), torch.stack(kept)
