"""A vector for a text, or for each of its tokens, from the final residual stream.

    token      rms(x_i)           x is the residual stream before the head's norm and neuron
    text       mean_i rms(x_i)    over the tokens of the text, the document mark left out
               rms(x_last)        where the head reads the last token only: causal classifiers

rms divides by the root mean square, so that every token of a text counts the same. The residual is
what all heads share; docs/models/spike-transformer.md compares it with the head neuron's emissions.
Neighbours are found by cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from spikeloom import tokenizers
from spikeloom.errors import ConfigError, DataError
from spikeloom.model import SpikeloomForSequenceClassification

Level = Literal["token", "sentence"]


@dataclass(frozen=True)
class Embedding:
    """What a vector `[D]` stands for.

    Attributes:
        text: a whole text, or a token's characters.
        vector: float32.
    """

    text: str
    vector: np.ndarray


class Embedder:
    """Vectors by a language model, a tagger or a classifier.

    Args:
        model: with a backbone `model.model`.
        tokenizer: of it.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._backbone = model.model
        self._tokenizer = tokenizer
        self._backend = tokenizers.literal(tokenizer)
        self._context = model.config.max_position_embeddings
        classifier = isinstance(model, SpikeloomForSequenceClassification)
        self._last_only = classifier and not model.config.bidirectional

    def embed(self, texts: Sequence[str], level: Level = "sentence") -> list[Embedding]:
        """One vector a text, or all vectors of all tokens in their order.

        Raises:
            ConfigError: unknown level.
            DataError: a text is empty.
        """
        if level not in ("token", "sentence"):
            raise ConfigError(f"--level {level}: expected token or sentence")
        found: list[Embedding] = []
        for i, text in enumerate(texts):
            pieces = self._backend.encode(text, add_special_tokens=False)
            if not pieces.ids:
                raise DataError(f"text {i}: {text!r} is empty: there is nothing to embed")
            vectors = self._vectors(pieces.ids).numpy()
            if level == "sentence":
                whole = vectors[-1] if self._last_only else vectors.mean(0)
                found.append(Embedding(text, whole))
            else:
                spelled = [text[start:end] for start, end in pieces.offsets]
                found += map(Embedding, spelled, vectors)
        return found

    @torch.no_grad()
    def _vectors(self, ids: list[int]) -> Tensor:
        """The residuals of tokens `[L, D]`, read in parts no longer than the context."""
        size = max(self._context - 1, 1)
        parts = [ids[i : i + size] for i in range(0, len(ids), size)]
        return torch.cat([self._residual([self._tokenizer.bos_token_id, *p])[1:] for p in parts])

    def _residual(self, ids: list[int]) -> Tensor:
        """What leaves the last layer, each token at unit root mean square, `[L, D]`."""
        caught: list[Tensor] = []
        last = self._backbone.decoder.layers[-1]
        hook = last.register_forward_hook(lambda module, given, out: caught.append(out[0]))
        try:
            self._backbone(input_ids=torch.tensor([ids]))
        finally:
            hook.remove()
        x = caught[0].float().mean(0)  # over the steps of the step clock
        return x * x.square().mean(-1, keepdim=True).clamp(min=1e-12).rsqrt()


def nearest(query: np.ndarray, others: Sequence[Embedding], count: int) -> list[tuple[str, float]]:
    """The texts of the nearest vectors and their cosines, best first; equal texts once."""
    matrix = np.stack([each.vector for each in others])
    lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(query)
    cosines = matrix @ query / np.maximum(lengths, 1e-12)
    best: dict[str, float] = {}
    for i in np.argsort(-cosines, kind="stable"):
        best.setdefault(others[i].text, float(cosines[i]))
        if len(best) == count:
            break
    return list(best.items())
