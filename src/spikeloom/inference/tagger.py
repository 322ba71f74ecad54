"""Text in, labelled spans of characters out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from spikeloom.data.records import Span
from spikeloom.data.tagging import OUTSIDE, UNLABELLED, Row, RowMaker, Word, spans_of, words_of
from spikeloom.model import SpikeloomForTokenClassification


@dataclass(frozen=True)
class Tagging:
    """What a tagger says of a text: its words, and a BIO tag for each."""

    words: list[Word]
    tags: list[str]

    @property
    def spans(self) -> tuple[Span, ...]:
        return spans_of(self.words, self.tags)


class Tagger:
    """A token classifier and its tokenizer.

    Attributes:
        labels: O, then B and I of every type.
    """

    def __init__(self, model: SpikeloomForTokenClassification, tokenizer: Any) -> None:
        self.model = model
        names: Any = model.config.id2label
        self.labels: list[str] = [names[i] for i in range(len(names))]
        self._pad = tokenizer.pad_token_id or 0
        context = model.config.max_position_embeddings
        self._maker = RowMaker(tokenizer, self.labels, context)

    def tag(self, texts: Sequence[str], batch_size: int = 32) -> list[Tagging]:
        """Words and tags of each text; a text longer than the context is read in parts."""
        words = [words_of(text) for text in texts]
        rows = [
            self._maker.rows(text, places, [OUTSIDE] * len(places))
            for text, places in zip(texts, words, strict=True)
        ]
        tags = self._tags([row for parts in rows for row in parts], batch_size)
        return [
            Tagging(places, [tag for _ in parts for tag in next(tags)])
            for places, parts in zip(words, rows, strict=True)
        ]

    def _tags(self, rows: list[Row], batch_size: int) -> Iterator[list[str]]:
        """The tags of the words of each row, in their order."""
        for i in range(0, len(rows), batch_size):
            yield from self._tag_batch(rows[i : i + batch_size])

    @torch.no_grad()
    def _tag_batch(self, rows: list[Row]) -> Iterator[list[str]]:
        length = max(len(row.input_ids) for row in rows)
        ids = torch.full((len(rows), length), self._pad)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row.input_ids)] = torch.tensor(row.input_ids)
            mask[i, : len(row.input_ids)] = 1
        device = self.model.device
        logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
        classes = logits.argmax(-1).tolist()
        for row, found in zip(rows, classes, strict=True):
            yield [
                self.labels[c] for c, y in zip(found, row.labels, strict=False) if y != UNLABELLED
            ]


def redacted(text: str, spans: Sequence[Span]) -> str:
    """The text with `[TYPE]` in place of every span; spans in order, without overlap."""
    pieces, at = [], 0
    for span in spans:
        pieces += [text[at : span.start], f"[{span.label}]"]
        at = span.end
    return "".join([*pieces, text[at:]])
