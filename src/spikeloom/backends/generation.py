"""Choosing the next token, for any engine that reads a token at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from spikeloom.backends.weights import Array
from spikeloom.errors import CheckpointError


class Steps(Protocol):
    """An engine: a fresh state, and a step that advances one and returns logits `[V]`."""

    def new_state(self) -> Any: ...

    def step(self, token: int, state: Any) -> Array: ...


def generate(
    engine: Steps,
    prompt: Sequence[int],
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    stops: Collection[int] = (),
    state: Any = None,
) -> Iterator[int]:
    """Continue a prompt of at least one token, up to one of `stops` (which is yielded).

    The state, a fresh one if None, has not read the last token yielded.
    """
    state = engine.new_state() if state is None else state
    rng, tokens = np.random.default_rng(seed), list(prompt)
    for _ in range(max_new_tokens):
        for token in tokens:
            logits = engine.step(token, state)
        tokens = [sample(logits, temperature, top_p, rng)]
        yield tokens[0]
        if tokens[0] in stops:
            return


class Reading:
    """How much of a text was read, and which share of the weights that took.

    Attributes:
        position: tokens read.
    """

    def __init__(self) -> None:
        self.position = 0
        self._touched = 0.0

    def count(self, share: float, tokens: int = 1) -> None:
        """Note that so many tokens were read, at this mean active share."""
        self._touched += share * tokens
        self.position += tokens

    @property
    def active_share(self) -> float:
        """Weights that spikes touched per token, over all weights in products and gains."""
        return self._touched / max(self.position, 1)


class ReadsAtOnce(ABC):
    """An engine that reads a prompt all at once."""

    @abstractmethod
    def new_state(self) -> Any:
        """A state that has read nothing."""

    @abstractmethod
    def step(self, token: int, state: Any) -> Array:
        """Read a token, and advance the state; the logits of the next, `[V]`."""

    @abstractmethod
    def read(self, tokens: Sequence[int], state: Any) -> Any:
        """Read tokens, and advance the state."""

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int = 100,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stops: Collection[int] = (),
        state: Any = None,
    ) -> Iterator[int]:
        """Arguments and results of `generate`."""
        state = self.new_state() if state is None else state
        if len(prompt) > 1:
            self.read(prompt[:-1], state)
        yield from generate(
            self, prompt[-1:], max_new_tokens, temperature, top_p, seed, stops, state
        )


def sample(logits: Array, temperature: float, top_p: float, rng: np.random.Generator) -> int:
    """The likeliest token at temperature 0, else one of those that together have `top_p`.

    Raises:
        CheckpointError: a logit is not a number, so that there is nothing to choose from.
    """
    if np.isnan(logits).any():
        raise CheckpointError("the model's logits are NaN: its weights are damaged, or overflow")
    if temperature <= 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / temperature
    p = np.exp(scaled - scaled.max())
    order = np.argsort(-p)
    p = p[order] / p.sum()
    p[np.cumsum(p) - p >= top_p] = 0.0  # the likeliest always stays
    return int(rng.choice(order, p=p / p.sum()))
