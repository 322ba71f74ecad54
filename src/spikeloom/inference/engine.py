"""The event-driven engine: a checkpoint decodes token by token, reading only weights that fire.

    engine = Engine.load("runs/tiny", dtype="int8")
    for token in engine.generate(prompt, max_new_tokens=50):
        ...

The engine is the weights; what depends on the text is an `EngineState`, of which it has one of its
own, and takes any other that it is given (a server keeps one per session). One token takes one call
into C++ (`decode.cpp`), or, without a compiler, plain torch (`torch_step.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from spikeloom.checkpoint import read_config, read_tensors, resolve
from spikeloom.errors import SpikeloomError
from spikeloom.inference import native_step, torch_step
from spikeloom.inference.decoding import Decodes
from spikeloom.inference.plan import Plan, check_supported, make_plan
from spikeloom.inference.state import EngineState


class Engine(Decodes):
    """A decoder for one sequence on one CPU thread.

    Args:
        plan: the weights (`Engine.load` and `Engine.from_model` make it).
        native: whether to use the C++ step where it can be compiled.

    Attributes:
        config: the architecture.
        state: what it has read, unless another state is passed.
    """

    def __init__(self, plan: Plan, native: bool = True) -> None:
        self.plan = plan
        self.config = plan.config
        self.state = EngineState(plan)
        self._native = native_step.load(plan) if native else None

    @classmethod
    def load(cls, directory: str | Path, dtype: str = "float32") -> Engine:
        """Read a checkpoint directory.

        Args:
            directory: with `config.json` and `model.safetensors`; or an interrupted run, whose
                newest whole `checkpoint-N` is taken then (said on stderr).
            dtype: of the weights that products read: `float32`, `bfloat16`, `int8` (per row).

        Raises:
            CheckpointError: not a checkpoint, or not ours.
            ConfigError: the architecture or the dtype has no event-driven form.
        """
        path = resolve(directory)
        config = read_config(path)
        check_supported(config)
        return cls(make_plan(config, read_tensors(path), dtype))

    @classmethod
    def from_model(cls, model: Any, dtype: str = "float32") -> Engine:
        """Copy the weights of a live `SpikeloomForCausalLM`."""
        return cls(make_plan(model.config.architecture, model.state_dict(), dtype))

    def new_state(self) -> EngineState:
        """A state that has read nothing."""
        return EngineState(self.plan)

    def reset(self) -> None:
        """Forget what the engine's own state has read."""
        self.state.reset()

    def step(self, token: int, state: EngineState | None = None) -> Tensor:
        """Read one token.

        Args:
            token: its id.
            state: advanced in place; the engine's own if None.

        Returns:
            logits of the next token, `[V]` float32, a tensor of its own.
        """
        return self.prefill((token,), state)

    def prefill(self, tokens: Sequence[int], state: EngineState | None = None) -> Tensor:
        """Read tokens in order; the logits after the last, `[V]`. The head runs once."""
        tokens = self._checked(tokens)
        state = self.state if state is None else state
        if self._native is not None:
            logits = self._native(state, tokens)
        else:
            state.reserve(len(tokens))
            for token in tokens[:-1]:
                torch_step.step(self.plan, state, token, with_logits=False)
            logits = torch_step.step(self.plan, state, tokens[-1])
        assert logits is not None
        return logits

    def _checked(self, tokens: Sequence[int]) -> Sequence[int]:
        if len(tokens) == 0:
            raise SpikeloomError("there is nothing to read: give at least one token")
        if min(tokens) < 0 or max(tokens) >= self.config.vocab_size:
            raise SpikeloomError(
                f"token ids {min(tokens)} to {max(tokens)}: the vocabulary ends at "
                f"{self.config.vocab_size - 1}"
            )
        return tokens
