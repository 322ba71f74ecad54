"""Documents to token ids, in batches that keep every core busy and memory bounded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from spikeloom.errors import DataError
from spikeloom.tokenizers import literal

PIECE_CHARACTERS = 1 << 18
_BATCH_CHARACTERS = 1 << 22
_BATCH_PIECES = 4096

# Before the first word of a line, or before the space of a word: our pre-tokenizers split there
# anyway, so that a long document has the same tokens in pieces as in one.
_SEAM = re.compile(r"(?<=\n)(?=\w)|(?<=\w)(?= \w)")


@dataclass(frozen=True)
class EncodedPiece:
    """Tokens of a document, or of a part of a long one."""

    ids: NDArray[np.uint32]
    text_bytes: int  # of UTF-8
    opens_document: bool


def encode_documents(
    documents: Iterable[str], tokenizer: PreTrainedTokenizerFast
) -> Iterator[EncodedPiece]:
    """Token ids of each document in order, without special tokens.

    Text that looks like a special token is encoded as the text it is.

    Args:
        documents: texts; one longer than `PIECE_CHARACTERS` comes in several pieces.
        tokenizer: any fast one. Ours give the same ids in pieces; one that puts a space before a
            text (some SentencePiece models) does so once more per piece.
    """
    backend = literal(tokenizer)
    for batch in _batches(documents):
        encodings = backend.encode_batch_fast([text for text, _ in batch], add_special_tokens=False)
        for (text, opens), encoding in zip(batch, encodings, strict=True):
            ids = np.asarray(encoding.ids, dtype=np.uint32)
            if text and not ids.size:
                raise DataError(f"the tokenizer has no tokens for {text[:20]!r}")
            yield EncodedPiece(ids, len(text.encode()), opens)


def _batches(documents: Iterable[str]) -> Iterator[list[tuple[str, bool]]]:
    """Lists of (piece of a document, whether it is the first)."""
    batch: list[tuple[str, bool]] = []
    characters = 0
    for document in documents:
        for index, piece in enumerate(pieces(document)):
            batch.append((piece, index == 0))
            characters += len(piece)
            if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_PIECES:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch


def pieces(text: str, least: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Cut a text at seams, each piece but the last at least `least` characters long."""
    start = 0
    while seam := _SEAM.search(text, start + least):
        yield text[start : seam.start()]
        start = seam.start()
    yield text[start:]
