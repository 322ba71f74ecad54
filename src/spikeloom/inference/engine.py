"""The event-driven engine: a checkpoint decodes token by token, reading only weights that fire.

    engine = Engine.load("runs/tiny", dtype="int8")
    for token in engine.generate(prompt_ids, max_new_tokens=50):
        ...

The engine is the weights; what depends on the text is an `EngineState`, of which it has one of its
own, and takes any other that it is given (a server keeps one per session). One token takes one call
into C++ (`decode.cpp`), or, without a compiler, plain torch (`torch_step.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikeloom.checkpoint import read_config, read_tensors, resolve
from spikeloom.errors import CheckpointError, SpikeloomError
from spikeloom.inference import native_step, torch_step
from spikeloom.inference.plan import Plan, check_supported, make_plan
from spikeloom.inference.state import EngineState


class Engine:
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

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int = 100,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        eos: int | Collection[int] | None = None,
        state: EngineState | None = None,
    ) -> Iterator[int]:
        """Continue a prompt.

        Args:
            prompt_ids: at least one token.
            max_new_tokens: stop after so many.
            temperature: 0 takes the likeliest token, as `generate(do_sample=False)` does.
            top_p: sample among the likeliest tokens that together have this probability.
            seed: of the sampling.
            eos: stop after one of these (it is yielded); None takes the model's, `()` none.
            state: continued in place; a fresh one if None. It has not read the last token yielded.

        Yields:
            token ids, as soon as they are known.
        """
        state = self.new_state() if state is None else state
        stops = _stops(self.config.eos_token_id if eos is None else eos)
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        tokens = list(prompt_ids)
        for _ in range(max_new_tokens):
            token = sample(self.prefill(tokens, state), temperature, top_p, generator)
            yield token
            if token in stops:
                return
            tokens = [token]

    def _checked(self, tokens: Sequence[int]) -> Sequence[int]:
        if len(tokens) == 0:
            raise SpikeloomError("there is nothing to read: give at least one token")
        if min(tokens) < 0 or max(tokens) >= self.config.vocab_size:
            raise SpikeloomError(
                f"token ids {min(tokens)} to {max(tokens)}: the vocabulary ends at "
                f"{self.config.vocab_size - 1}"
            )
        return tokens


def sample(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """Draw a token from logits `[V]`; temperature 0 takes the likeliest.

    Raises:
        CheckpointError: a logit is not a number, so that there is nothing to choose from.
    """
    if logits.isnan().any():
        raise CheckpointError("the model's logits are NaN: its weights are damaged, or overflow")
    if temperature <= 0:
        return int(logits.argmax())
    probabilities = torch.softmax((logits - logits.max()) / temperature, dim=-1)
    if top_p >= 1:
        return int(torch.multinomial(probabilities, 1, generator=generator))
    ordered, tokens = probabilities.sort(descending=True)
    before = ordered.cumsum(0) - ordered  # the likeliest token always stays
    ordered = ordered.masked_fill(before >= top_p, 0.0)
    return int(tokens[torch.multinomial(ordered, 1, generator=generator)])


def _stops(eos: int | Collection[int] | None) -> frozenset[int]:
    if eos is None:
        return frozenset()
    return frozenset((eos,) if isinstance(eos, int) else eos)
