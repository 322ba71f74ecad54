"""Text in, text out, streaming: a tokenizer around the event-driven engine."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeloom import tokenizers
from spikeloom.checkpoint import resolve
from spikeloom.data.readers import without_surrogates
from spikeloom.errors import ConfigError
from spikeloom.inference.engine import Engine

_NO_CHARACTER = "\ufffd"  # what bytes decode to that are no UTF-8, or not yet
MOST_GUIDANCE = 100
_UNFINISHED = 3  # bytes that a character may still be waiting with


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the likeliest token.
        top_p: sample among the likeliest tokens that together have this probability.
        seed: of the sampling.
        max_new_tokens: stop after so many.
        guidance: how far an answer is held to its request (`inference.guidance`); 1 for none,
            and for all but conversations in roles.
    """

    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0
    max_new_tokens: int = 100
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature {self.temperature}: expected 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p {self.top_p}: expected a probability in (0, 1]")
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens {self.max_new_tokens}: expected at least 1")
        if not 0 < self.guidance <= MOST_GUIDANCE:
            raise ConfigError(
                f"guidance {self.guidance}: expected above 0 and at most {MOST_GUIDANCE}; 1 is none"
            )


class Spelling:
    """Token ids to text, in pieces of whole characters.

    `tokenizers.DecodeStream` does the same, but gives up where bytes are no UTF-8, and what a model
    has learned little is often just that.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._before: list[int] = []  # the ids of the last piece: decoders ask what came before
        self._ids: list[int] = []  # since then
        self._shown = 0  # characters of these, if there were bad bytes

    def add(self, token: int) -> str:
        """The text that a token completes; empty while a character lacks bytes."""
        self._ids.append(token)
        alone = self._text(self._ids)
        if alone.endswith(_NO_CHARACTER):
            # An unfinished character shows as one to three of these, bad bytes as any number.
            bad = len(alone) - len(alone.rstrip(_NO_CHARACTER)) > _UNFINISHED
            end = len(alone) - _UNFINISHED if bad else 0
            piece = alone[self._shown : end]
            self._shown = max(self._shown, end)
            return piece
        text = self._text(self._before + self._ids)[len(self._text(self._before)) :]
        piece = text[self._shown :]
        self._before, self._ids, self._shown = self._ids, [], 0
        return piece

    def _text(self, ids: list[int]) -> str:
        return str(self._backend.decode(ids, skip_special_tokens=True))


class Generator:
    """Streams text from a checkpoint.

    Args:
        engine: of any backend, or guided.
        tokenizer: of the checkpoint.

    Attributes:
        given: token ids of the last stream, in order.
    """

    def __init__(self, engine: Any, tokenizer: Any) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.given: list[int] = []
        self._literal = tokenizers.literal(tokenizer)
        self._seconds, self._share = 0.0, 0.0

    @classmethod
    def load(cls, directory: str | Path) -> Generator:
        """Read a checkpoint directory, or the newest checkpoint of an unfinished run.

        Raises:
            CheckpointError: it is not one, is damaged, or its tokenizer does not fit.
        """
        path = resolve(directory)
        engine = Engine.load(path)
        return cls(engine, tokenizers.load(path, engine.config.vocab_size))

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text: nothing in it is taken for a special token."""
        return self._literal.encode(without_surrogates(text), add_special_tokens=False).ids

    def stream(
        self,
        prompt: str | Sequence[int],
        sampling: Sampling,
        state: Any = None,
        stops: Sequence[int] | None = None,
    ) -> Iterator[str]:
        """Continue a prompt, piece by piece as soon as a piece is whole characters.

        Args:
            prompt: text, or token ids; text without a state starts a document.
            sampling: how to choose.
            state: continued in place; a fresh one if None.
            stops: token ids that end the text; the end of a document if None.

        Raises:
            ConfigError: guidance, of an engine that is not guided.
        """
        if sampling.guidance != getattr(self.engine, "guidance", 1):
            raise ConfigError("guidance holds an answer to a request: it takes a conversation")
        ids = self._prompt_ids(prompt, fresh=state is None)
        stops = [self.tokenizer.eos_token_id] if stops is None else stops
        state = self.engine.new_state() if state is None else state
        spelling, began = Spelling(self.tokenizer), time.perf_counter()
        self.given = []
        for token in self.engine.generate(
            ids,
            sampling.max_new_tokens,
            sampling.temperature,
            sampling.top_p,
            sampling.seed,
            stops,
            state,
        ):
            self.given.append(token)
            self._seconds, self._share = time.perf_counter() - began, state.active_share
            if piece := spelling.add(token):
                yield piece

    def statistics(self) -> dict[str, float]:
        """Tokens, seconds and the measured share of weights read, of the last stream."""
        return {
            "tokens": len(self.given),
            "seconds": self._seconds,
            "active_share": self._share,
        }

    def _prompt_ids(self, prompt: str | Sequence[int], fresh: bool) -> list[int]:
        if not isinstance(prompt, str):
            return list(prompt)
        start = [self.tokenizer.bos_token_id] if fresh else []
        return start + self.encode(prompt)
