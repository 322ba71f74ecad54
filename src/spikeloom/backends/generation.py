"""What engines beside the event-driven one share: reading on, and choosing the next token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from spikeloom.backends.weights import Array
from spikeloom.errors import CheckpointError


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


class Decodes(ABC):
    """An engine: a state goes in, is advanced, and logits come out."""

    @abstractmethod
    def new_state(self) -> Any:
        """A state that has read nothing."""

    @abstractmethod
    def step(self, token: int, state: Any) -> Array:
        """Read a token, and advance the state; the logits of the next, `[V]`."""

    def prefill(self, tokens: Sequence[int], state: Any) -> Array:
        """Read tokens, at least one, in order; the logits after the last, `[V]`."""
        for token in tokens:
            logits = self.step(token, state)
        return logits

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
        """Continue a prompt of at least one token, up to one of `stops` (which is yielded).

        The state, a fresh one if None, has not read the last token yielded.
        """
        state = self.new_state() if state is None else state
        rng, tokens = np.random.default_rng(seed), prompt
        for _ in range(max_new_tokens):
            token = sample(self.prefill(tokens, state), temperature, top_p, rng)
            yield token
            if token in stops:
                return
            tokens = [token]


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
