"""The event-driven product, as a specification."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeloom.ops.event.weights import InputMajor


def event_matvec(payload: Tensor, weights: InputMajor) -> Tensor:
    """`y = sum over channels i that fired of payload[i] * scale[i] * W[i, :]`.

    Args:
        payload: what each channel sends, 0 where it is silent, `[d_in]`, float or integer.
        weights: input-major weights.

    Returns:
        `[d_out]` float32.
    """
    fired = payload.nonzero().squeeze(1)
    coefficient = payload[fired].float() * weights.scale[fired]
    rows: Tensor = weights.data[fired].float()
    return torch.mv(rows.t(), coefficient)
