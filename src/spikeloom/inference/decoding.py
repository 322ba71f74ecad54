"""What all engines share, of every backend: reading on, and choosing the next token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from spikeloom.config import ModelConfig
from spikeloom.errors import CheckpointError

_COLDEST = 1e-6  # below, dividing by the temperature could overflow


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
    """An engine: a state goes in, is advanced, and logits come out, as an array or a CPU tensor.

    Attributes:
        config: the architecture.
    """

    config: ModelConfig

    @abstractmethod
    def new_state(self) -> Any:
        """A state that has read nothing."""

    @abstractmethod
    def prefill(self, tokens: Sequence[int], state: Any) -> Any:
        """Read tokens, at least one, in order; the logits after the last, `[V]`."""

    def step(self, token: int, state: Any) -> Any:
        """Read one token; the logits of the next, `[V]`."""
        return self.prefill((token,), state)

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int = 100,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stops: Collection[int] | None = None,
        state: Any = None,
    ) -> Iterator[int]:
        """Continue a prompt.

        Args:
            prompt: at least one token.
            max_new_tokens: stop after so many.
            temperature: 0 takes the likeliest token, as `generate(do_sample=False)` does.
            top_p: sample among the likeliest tokens that together have this probability.
            seed: of the sampling; the same for every engine.
            stops: stop after one of these (it is yielded); None takes the model's end, `()` none.
            state: continued in place; a fresh one if None. It has not read the last token yielded.

        Yields:
            token ids, as soon as they are known.
        """
        state = self.new_state() if state is None else state
        stops = (self.config.eos_token_id,) if stops is None else stops
        rng, tokens = np.random.default_rng(seed), prompt
        for _ in range(max_new_tokens):
            token = sample(self.prefill(tokens, state), temperature, top_p, rng)
            yield token
            if token in stops:
                return
            tokens = (token,)


def sample(logits: Any, temperature: float, top_p: float, rng: np.random.Generator) -> int:
    """Draw a token from logits `[V]`, an array or a CPU tensor.

    The likeliest token at temperature 0, else one of those that together have `top_p`.

    Raises:
        CheckpointError: a logit is not a number, so that there is nothing to choose from.
    """
    logits = np.asarray(logits)
    if np.isnan(logits).any():
        raise CheckpointError("the model's logits are NaN: its weights are damaged, or overflow")
    if temperature < _COLDEST:
        return int(logits.argmax())
    p = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    order = np.argsort(p)[::-1]
    below = p[order].cumsum()
    kept = np.searchsorted(below, top_p * below[-1]) + 1  # up to the one that reaches top_p
    drawn = np.searchsorted(below[:kept], rng.random() * below[kept - 1], side="right")
    return int(order[min(drawn, kept - 1)])
