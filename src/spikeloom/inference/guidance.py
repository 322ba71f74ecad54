"""Guidance: an answer is held to the request by what the model would say without it.

    log p  ~  log p(without) + guidance * (log p(asked) - log p(without))

Two states read the answer, one behind the request, one behind the same turn left empty. A guidance
of 1 is plain sampling; above it, what the request makes likelier becomes likelier still. Every
token is read twice. (Classifier-free guidance: Ho and Salimans 2022; of language models: Sanchez et
al. 2023.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spikeloom.inference.decoding import Decodes


class GuidedState:
    """Where both readings stand.

    Attributes:
        asked, without: states of the engine.
    """

    def __init__(self, asked: Any, without: Any) -> None:
        self.asked, self.without = asked, without

    @property
    def position(self) -> int:
        """Tokens read behind the request, which is in them."""
        return int(self.asked.position)

    @property
    def active_share(self) -> float:
        """Weights read per token of the text, by both readings, over all weights."""
        again = self.without.active_share * self.without.position / max(self.position, 1)
        return float(self.asked.active_share + again)


class Guided(Decodes):
    """An engine whose next token follows from two readings.

    Args:
        engine: of any backend.
        guidance: see the module's text.
    """

    def __init__(self, engine: Decodes, guidance: float) -> None:
        self.engine, self.guidance = engine, guidance
        self.config = engine.config

    def new_state(self) -> GuidedState:
        return GuidedState(self.engine.new_state(), self.engine.new_state())

    def read_apart(self, asked: Sequence[int], without: Sequence[int], state: GuidedState) -> None:
        """Read what differs, at least one token each; no token is chosen."""
        self.engine.prefill(asked, state.asked)
        self.engine.prefill(without, state.without)

    def prefill(self, tokens: Sequence[int], state: GuidedState) -> np.ndarray:
        """Read the same tokens behind both; the logits after the last, `[V]` float64."""
        asked, without = (
            np.asarray(self.engine.prefill(tokens, reading), dtype=np.float64)
            for reading in (state.asked, state.without)
        )
        return without + self.guidance * (asked - without)
