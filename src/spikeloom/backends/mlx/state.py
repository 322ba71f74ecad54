"""What is carried from token to token: an explicit object, of constant size except for softmax."""

from __future__ import annotations

from typing import Any

import mlx.core as mx


class LayerMemory:
    """The memory of one layer, or of the head neuron.

    It has what mlx-lm asks of a cache: `state`, `offset`, `nbytes`, `is_trimmable`.

    Attributes:
        arrays: by name: membranes `[B, 1, D]` without the token axis, keys and values
            `[T, B, H_kv, 1, n, K]`, and SDSA states `[T, B, H_kv, G, K, K]` (Hadamard: one row).
        offset: tokens read.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, mx.array] = {}
        self.offset = 0

    @property
    def state(self) -> dict[str, mx.array]:
        return self.arrays

    @state.setter
    def state(self, arrays: dict[str, mx.array]) -> None:
        self.arrays = arrays

    @property
    def nbytes(self) -> int:
        """Memory of all arrays, in bytes."""
        return sum(a.nbytes for a in self.arrays.values())

    def is_trimmable(self) -> bool:
        """What was read cannot be taken back: the state is a sum over it."""
        return False

    def empty(self) -> bool:
        return not self.offset

    def copy(self) -> LayerMemory:
        """An independent memory at the same point of the text (arrays are never changed)."""
        twin = LayerMemory()
        twin.arrays, twin.offset = dict(self.arrays), self.offset
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> LayerMemory:
        return self.copy()
