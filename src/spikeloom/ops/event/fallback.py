"""The event-driven product without a compiler: `embedding_bag` reads only the rows it is given."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeloom.ops.event.weights import InputMajor


def event_matvec(payload: Tensor, weights: InputMajor) -> Tensor:
    """Same arguments and result as `naive.event_matvec`."""
    fired = payload.nonzero().squeeze(1)
    if fired.numel() == 0:
        return torch.zeros(weights.d_out)
    coefficient = payload[fired].float() * weights.scale[fired]
    if weights.data.dtype != torch.float32:
        # embedding_bag has no int8 and adds bf16 up in bf16: widen the rows that are read instead.
        return torch.mv(weights.data[fired].float().t(), coefficient)
    bag = F.embedding_bag(
        fired, weights.data, fired.new_zeros(1), mode="sum", per_sample_weights=coefficient
    )
    return bag.squeeze(0)
