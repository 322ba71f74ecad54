"""Where MLX computes: the GPU of a Mac, or a CPU."""

from __future__ import annotations

import mlx.core as mx


def on_gpu() -> bool:
    """Whether arrays are computed on a GPU unless another device is asked for."""
    return bool(mx.default_device().type == mx.DeviceType.gpu)
