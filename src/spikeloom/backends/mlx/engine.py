"""One token at a time, for one sequence: constant state, and on a GPU a compiled step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from spikeloom.backends.mlx import checkpoint
from spikeloom.backends.mlx.decoder import Model
from spikeloom.backends.mlx.device import on_gpu
from spikeloom.backends.mlx.state import LayerMemory
from spikeloom.backends.weights import Array, fed_shares, touched
from spikeloom.checkpoint import resolve
from spikeloom.inference.decoding import Decodes, Reading

PREFILL = 256  # tokens of a prompt that are read at once


class State(Reading):
    """Everything that depends on the tokens read so far.

    MLX multiplies whole matrices: its active share says how sparse the model is, not what was read.

    Attributes:
        cache: memories, one per layer and the head's.
    """

    def __init__(self, cache: list[LayerMemory]) -> None:
        super().__init__()
        self.cache = cache

    @property
    def nbytes(self) -> int:
        """Memory of all arrays, in bytes."""
        return sum(memory.nbytes for memory in self.cache)

    def copy(self) -> State:
        """An independent state at the same point of the text."""
        twin = copy.copy(self)
        twin.cache = [memory.copy() for memory in self.cache]
        return twin


class Engine(Decodes):
    """Reads and continues text.

    Args:
        model: of any precision, quantised or not.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.config = model, model.config
        self._shares = fed_shares(model.config)
        # Keys and values grow, and rotate with the position: compiled anew for every token.
        self._constant = all(layer.mixer != "attention" for layer in model.config.layer_list)
        # On a CPU, compiling takes half a minute and wins nothing that one text would pay back.
        compiled = self._constant and on_gpu()
        self._step: Callable[..., Any] = mx.compile(self._forward) if compiled else self._forward

    @classmethod
    def load(cls, directory: str | Path) -> Engine:
        """Read a checkpoint directory, or the newest checkpoint of an unfinished run."""
        model = checkpoint.load(resolve(directory))
        model.eval()  # its norms need not look for silent rows
        return cls(model)

    def new_state(self) -> State:
        """A state that has read nothing."""
        return State(self.model.make_cache())

    def step(self, token: int, state: State) -> Array:
        """Read one token, and advance the state; the logits of the next, `[V]`."""
        return self._read(self._step, [token], state)

    def prefill(self, tokens: Sequence[int], state: State) -> Array:
        """Read tokens, `PREFILL` at a time; the logits after the last, `[V]`."""
        before = tokens[:-1]
        for start in range(0, len(before), PREFILL):
            self._read(self._forward, before[start : start + PREFILL], state)
        return self.step(tokens[-1], state)

    def _read(self, forward: Callable[..., Any], tokens: Sequence[int], state: State) -> Array:
        arrays = [memory.arrays for memory in state.cache]
        position = 0 if self._constant else state.position  # a constant to the compiled step
        logits, rates, arrays = forward(mx.array([tokens]), arrays, position)
        mx.eval(logits, rates, arrays)
        for memory, after in zip(state.cache, arrays, strict=True):
            memory.arrays = after
        state.count(touched(np.array(rates), self._shares), len(tokens))
        return np.array(logits)

    def _forward(
        self, tokens: mx.array, arrays: list[dict[str, mx.array]], position: int
    ) -> tuple[mx.array, mx.array, list[dict[str, mx.array]]]:
        """A pure function: logits `[V]`, rates `[N]`, and the arrays after `tokens` `[1, n]`."""
        cache = self.model.make_cache()
        for memory, before in zip(cache, arrays, strict=True):
            memory.arrays, memory.offset = dict(before), position
        out = self.model.forward(tokens, cache)
        return out.logits[0, -1].astype(mx.float32), out.rates, [m.arrays for m in cache]
