"""The training step in MLX, compiled: loss, gradients, clipping, AdamW with a rate per layer."""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from spikeloom.backends.mlx.decoder import Model
from spikeloom.backends.weights import fed_shares


def losses(
    model: Model, rows: mx.array, target: float | None = None, rate_weight: float = 2.0
) -> tuple[mx.array, mx.array, mx.array]:
    """What is descended, cross-entropy in nats, and active share, of rows `[B, L]`.

    What is descended is `cross-entropy + rate_weight * max(0, active share - target)`.
    """
    out = model.forward(rows)
    logits = out.logits[:, :-1].astype(mx.float32)
    loss = nn.losses.cross_entropy(logits, rows[:, 1:], reduction="mean")
    share = (out.rates * mx.array(fed_shares(model.config), mx.float32)).sum()
    if target is None:
        return loss, loss, share
    return loss + rate_weight * mx.maximum(share - target, 0), loss, share
