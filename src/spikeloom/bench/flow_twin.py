"""The dense decoder that other engines know: what llama.cpp and ONNX Runtime decode.

llama.cpp has no squared ReLU, so its twin has SwiGLU with a hidden layer of 2/3 the width: the same
layers, width, heads, vocabulary and number of weights as the spiking model, RMSNorm, rotary
positions and normalised queries and keys as both have them (llama.cpp calls that `qwen3`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from spikeloom.config import LayerConfig, ModelConfig
from spikeloom.errors import SpikeloomError
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM, dense_twin

CAPACITY = 256  # tokens that every peer has room for
COMPARED = 8  # tokens


class Peer(Protocol):
    """Another engine with its own copy of the twin: reads a token, returns logits `[V]`."""

    name: str

    def reset(self) -> None: ...

    def __call__(self, token: int) -> np.ndarray: ...


def flow_twin(config: ModelConfig, seed: int = 0) -> SpikeloomForCausalLM:
    """The twin of a model with squared ReLU, at random weights."""
    torch.manual_seed(seed)
    twin = replace(
        dense_twin(config),
        output_norm=False,
        intermediate_size=config.intermediate_size * 2 // 3,
        layers=(LayerConfig(mixer="attention", mlp="swiglu"),),
    )
    return SpikeloomForCausalLM(SpikeloomConfig.from_architecture(twin)).eval()


@torch.inference_mode()
def check(peer: Peer, twin: SpikeloomForCausalLM, tolerance: float) -> None:
    """Compare a peer's logits with the twin's in torch, float32.

    Args:
        peer: fresh; it is reset afterwards.
        twin: what it claims to compute.
        tolerance: of the distance of all logits, relative to their length.

    Raises:
        SpikeloomError: it computes something else, so its time means nothing.
    """
    tokens = list(range(100, 100 + COMPARED))
    wanted = twin(torch.tensor([tokens])).logits[0].float().numpy()
    got = np.stack([peer(token) for token in tokens])
    peer.reset()
    distance = float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
    if not distance <= tolerance:
        raise SpikeloomError(f"{peer.name}: logits are {distance:.2g} off, allowed {tolerance:g}")
