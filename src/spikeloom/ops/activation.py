"""Functions in front of a neuron that its Triton program takes in."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def squared_relu(x: Tensor) -> Tensor:
    """`relu(x)^2`, element by element (So et al. 2021)."""
    return F.relu(x).square()
