"""Guidance: an answer is held to the request by what the model would say without it.

    log p  ~  log p(without) + guidance * (log p(asked) - log p(without))

Two states read the answer, one behind the request, one behind the same turn left empty. A guidance
of 1 is plain sampling; above it, what the request makes likelier becomes likelier still. Every
token is read twice. (Classifier-free guidance: Ho and Salimans 2022; of language models: Sanchez et
al. 2023.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from spikeloom.inference.engine import sample


class GuidedState:
    """Where both readings stand.

    Attributes:
        asked, without: states of the engine.
        unasked: what `without` reads in place of the next prompt; None reads the prompt itself.
    """

    def __init__(self, asked: Any, without: Any) -> None:
        self.asked, self.without = asked, without
        self.unasked: Sequence[int] | None = None

    @property
    def position(self) -> int:
        """Tokens read behind the request, which is in them."""
        return int(self.asked.position)

    @property
    def active_share(self) -> float:
        """Weights read per token of the text, by both readings, over all weights."""
        again = self.without.active_share * self.without.position / max(self.position, 1)
        return float(self.asked.active_share + again)


class Guided:
    """An engine whose next token follows from two readings.

    Args:
        engine: of any backend (new_state, step).
        guidance: see the module's text; more than 0.
    """

    def __init__(self, engine: Any, guidance: float) -> None:
        self.engine, self.guidance = engine, guidance
        self.config = engine.config

    def new_state(self) -> GuidedState:
        return GuidedState(self.engine.new_state(), self.engine.new_state())

    def step(self, token: int, state: GuidedState) -> Tensor:
        """Read a token twice; logits of the next, `[V]`."""
        asked = _log_softmax(self.engine.step(token, state.asked))
        without = _log_softmax(self.engine.step(token, state.without))
        return without + self.guidance * (asked - without)

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int = 100,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stops: Collection[int] = (),
        state: GuidedState | None = None,
    ) -> Iterator[int]:
        """Continue a prompt of at least one token, up to one of `stops` (which is yielded).

        Both prompts, the given one and `state.unasked`, have to end with the same token. The state,
        a fresh one if None, has not read the last token yielded.
        """
        state = self.new_state() if state is None else state
        unasked = prompt if state.unasked is None else state.unasked
        state.unasked = None
        if prompt[-1] != unasked[-1]:
            raise ValueError(f"prompts end with {prompt[-1]} and {unasked[-1]}")
        for tokens, reading in ((prompt, state.asked), (unasked, state.without)):
            for token in tokens[:-1]:
                self.engine.step(token, reading)
        generator = torch.Generator()
        generator.manual_seed(generator.seed() if seed is None else seed)
        token = prompt[-1]
        for _ in range(max_new_tokens):
            token = sample(self.step(token, state), temperature, top_p, generator)
            yield token
            if token in stops:
                return


def _log_softmax(logits: Any) -> Tensor:
    """Of an array or a tensor, in float64."""
    return torch.log_softmax(torch.as_tensor(logits, dtype=torch.float64), dim=-1)
