"""One token at a time: state is carried, and weights of channels that are silent are not read.

The decay E of `attention.py`, unrolled, leaves a state of constant size per head:

    SDSA         M[t] = exp(g[t]) M[t-1] + k[t]^T v[t]     o[t] = q[t] M[t] / sqrt(K)
    Hadamard     m[t] = exp(g[t]) m[t-1] + k[t] * v[t]     o[t] = q[t] * m[t]

Softmax attention keeps keys and values, those of its window or all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.backends.numpy import attention
from spikeloom.backends.numpy.decoder import Decoder
from spikeloom.backends.numpy.neurons import neuron
from spikeloom.backends.weights import Array, Weights, fed_shares, read, roles, touched
from spikeloom.checkpoint import resolve
from spikeloom.config import LayerConfig, ModelConfig, NeuronConfig
from spikeloom.inference.decoding import Decodes, Reading

Product = Callable[[Array, Array], Array]


def selected(y: Array, rows: Array) -> Array:
    """The event-driven product `sum of y[i] rows[i]` over the channels that fired, `[d_out]`."""
    fired = np.flatnonzero(y)
    return y[fired] @ rows[fired]


def compiled() -> Product | None:
    """The same, as one loop in machine code that copies nothing; None without numba."""
    try:
        import numba
    except ImportError:
        return None

    def event_product(y: Array, rows: Array) -> Array:
        out = np.zeros(rows.shape[1], rows.dtype)
        for i in range(len(y)):
            if y[i] != 0:
                for j in range(len(out)):
                    out[j] += y[i] * rows[i, j]
        return out

    return numba.njit(event_product)


class State(Reading):
    """What is carried from token to token.

    Attributes:
        memory: by name, membranes `[1, 1, D]`, keys and values `[T, 1, H_kv, 1, n, K]`, and SDSA
            states `[T, 1, H_kv, G, K, K]` (Hadamard: one row).
    """

    def __init__(self) -> None:
        super().__init__()
        self.memory: Weights = {}


class Engine(Decoder, Decodes):
    """The decoder for one sequence; `product` defaults to `compiled()`, else `selected`."""

    def __init__(
        self, config: ModelConfig, w: Weights, event_product: Product | None = None
    ) -> None:
        super().__init__(config, w)
        self.event_product = event_product or compiled() or selected
        read = [name for *_, products in roles(config).values() for name in products]
        self.rows = {name: np.ascontiguousarray(w[f"{name}.weight"].T) for name in read}
        self.shares = fed_shares(config)

    @classmethod
    def load(cls, directory: str | Path) -> Engine:
        """Read a checkpoint directory, or the newest checkpoint of an unfinished run."""
        return cls(*read(resolve(directory)))

    def new_state(self) -> State:
        """A state that has read nothing."""
        return State()

    def prefill(self, tokens: Sequence[int], state: State) -> Array:
        """Read tokens, one by one; the logits after the last, `[V]`."""
        self.state = state
        for token in tokens:
            out = self.forward(np.array([[token]]))
            state.count(touched(out.rates, self.shares))
        return out.logits[0, 0]

    # Where the recurrence differs from all tokens at once.

    def product(self, y: Array, name: str) -> tuple[Array, Any]:
        flat = y.reshape(-1, y.shape[-1])
        out = np.stack([self.event_product(row, self.rows[name]) for row in flat])
        return out.reshape(*y.shape[:-1], -1), None

    def fire(self, x: Array, name: str, c: NeuronConfig) -> tuple[Array, float, Any]:
        return neuron(x, self.w, name, c, self.state.memory)

    def positions(self, length: int) -> Array:
        return self.state.position + np.arange(length)

    def mix(
        self, name: str, layer: LayerConfig, q: Array, k: Array, v: Array, g: Array | None
    ) -> tuple[Array, Any]:
        memory = self.state.memory
        if g is None:
            length = layer.sliding_window or self.state.position + 1
            for key, new in (("keys", k), ("values", v)):
                old = memory.get(f"{name}.{key}", new[..., :0, :])
                new = np.concatenate([old, new], axis=-2)
                memory[f"{name}.{key}"] = new[..., -length:, :]
            kept = memory[f"{name}.keys"], memory[f"{name}.values"]
            return attention.softmax_attention(q, *kept, None)[0], None
        matrix = layer.mixer == "sdsa"
        added = np.swapaxes(k, -1, -2) @ v if matrix else k * v
        state = np.exp(g)[..., None] * memory.get(name, np.zeros_like(added)) + added
        memory[name] = state
        return (q @ state) * q.shape[-1] ** -0.5 if matrix else q * state, None
