"""A learning rate per layer (`training.layer_decay`), for every backend.

The parameters of layer i learn at `layer_decay ** (layers - i)` of the learning rate: what lies
near the head learns fastest. A tied head is the embedding, and learns as that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable


def layer_factors(names: Iterable[str], decay: float) -> dict[str, float]:
    """Factor of the learning rate by parameter: 1 for the head, least for the embedding.

    Args:
        names: of all parameters, as in `model.safetensors`.
        decay: factor per layer, in (0, 1].
    """
    names = list(names)
    layers = {n: int(found[1]) for n in names if (found := re.search(r"layers\.(\d+)\.", n))}
    count = 1 + max(layers.values(), default=-1)
    depth = {n: count - layer for n, layer in layers.items()}
    depth |= {n: count + 1 for n in names if "embed_tokens" in n}
    return {n: decay ** depth.get(n, 0) for n in names}
