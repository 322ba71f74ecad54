"""What the engine carries from token to token: an explicit object, to copy, keep or hand over."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from spikeloom.inference.plan import LayerPlan, Plan

_FIRST_CAPACITY = 256  # tokens; doubled as full attention needs more
_LANES = 16  # capacities are whole vectors, so that scores need no remainder


class LayerMemory:
    """The memory of one mixer; `T` is 1 on the token clock.

    Attributes:
        memory: sdsa state, `[T, H, K, K]`, else None.
        keys: rotated keys, `[T, H_kv, K, capacity]` (transposed: scores are then a sum of rows,
            like every other product here), else None.
        values: `[T, H_kv, capacity, K]`, else None.
    """

    def __init__(self, plan: Plan, layer: LayerPlan) -> None:
        c = plan.config
        self.memory: Tensor | None = None
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        if layer.config.mixer == "sdsa":
            self.memory = torch.zeros(c.num_steps, c.num_attention_heads, c.head_dim, c.head_dim)
            return
        capacity = _whole(layer.config.sliding_window or _FIRST_CAPACITY)
        self.keys = torch.zeros(c.num_steps, c.key_value_heads, c.head_dim, capacity)
        self.values = torch.zeros(c.num_steps, c.key_value_heads, capacity, c.head_dim)

    @property
    def capacity(self) -> int:
        return 0 if self.keys is None else self.keys.shape[-1]

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` tokens."""
        assert self.keys is not None
        assert self.values is not None
        old, capacity = self.capacity, _whole(max(capacity, 2 * self.capacity))
        keys = self.keys.new_zeros(*self.keys.shape[:3], capacity)
        values = self.values.new_zeros(*self.values.shape[:2], capacity, self.values.shape[3])
        keys[..., :old] = self.keys
        values[:, :, :old] = self.values
        self.keys, self.values = keys, values

    def tensors(self) -> list[Tensor]:
        return [t for t in (self.memory, self.keys, self.values) if t is not None]


class EngineState:
    """Everything that depends on the tokens read so far. Its size is constant unless a layer has
    softmax attention without a window.

    Attributes:
        position: number of tokens read.
        membranes: of all neurons, one after the other.
        layers: the mixers' memories.
        counters: per neuron, weight rows read and weight rows there were, `[N, 2]`.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.native: Any = None  # pointers into the tensors below, see `native_step`
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.position = 0
        self.membranes = torch.zeros(self.plan.membranes)
        self.layers = [LayerMemory(self.plan, layer) for layer in self.plan.layers]
        self.counters = torch.zeros(len(self.plan.neurons), 2, dtype=torch.int64)
        self.native = None

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` more tokens where attention has no window."""
        needed = self.position + tokens
        for layer, memory in zip(self.plan.layers, self.layers, strict=True):
            full = layer.config.mixer == "attention" and layer.config.sliding_window is None
            if full and memory.capacity < needed:
                memory.grow(needed)
                self.native = None

    def copy(self) -> EngineState:
        """An independent state at the same point of the text."""
        twin = copy.copy(self)
        twin.native = None
        twin.membranes = self.membranes.clone()
        twin.counters = self.counters.clone()
        twin.layers = copy.deepcopy(self.layers)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> EngineState:
        return self.copy()

    @property
    def nbytes(self) -> int:
        """Memory of all tensors, in bytes."""
        tensors = [self.membranes, *(t for layer in self.layers for t in layer.tensors())]
        return sum(t.numel() * t.element_size() for t in tensors)

    @property
    def channel_rates(self) -> Tensor:
        """Share of weight rows read before each product so far, `[N]`, in order of computation."""
        return self.counters[:, 0] / self.counters[:, 1].clamp(min=1)

    @property
    def active_share(self) -> float:
        """Weights read per token over all weights in products and gains, head included, so far."""
        weights = torch.tensor([w.d_in * w.d_out for _, w in self.plan.products])
        rates = torch.stack([self.channel_rates[n.index] for n, _ in self.plan.products])
        return float(((rates * weights).sum() + self.plan.dense_weights) / self.plan.weights)


def _whole(tokens: int) -> int:
    """Whole vectors, and an odd number of them: rows of keys a power of two apart would all fall
    into the same few sets of the cache."""
    return (-(-tokens // _LANES) | 1) * _LANES
