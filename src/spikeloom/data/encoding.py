"""Documents to token ids, in batches that keep every core busy and memory bounded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from spikeloom.errors import DataError
from spikeloom.tokenizers import literal
from spikeloom.tokenizers.bpe import word_splitter

PIECE_CHARACTERS = 1 << 18
_BATCH_CHARACTERS = 1 << 22
_BATCH_PIECES = 4096
_MOST_WORDS = (
    1 << 20
)  # in the table of `_Words`; a MB of English prose brings some thousand new ones

# Before the first word of a line, or before the space of a word: our pre-tokenizers split there
# anyway, so that a long document has the same tokens in pieces as in one.
_SEAM = re.compile(r"(?<=\n)(?=\w)|(?<=\w)(?= \w)")
# The same, and between a letter and what is no letter: more and shorter words, fewer of them new.
_WORD_SEAM = re.compile(r"(?<=\n)(?=\w)|(?<=\S)(?= \w)|(?<=[a-zA-Z])(?=[^\w\s])")

Encode = Callable[[list[str]], Iterable[NDArray[np.uint32]]]


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
    encode = encoder(literal(tokenizer))
    for batch in _batches(documents):
        for (text, opens), ids in zip(batch, encode([t for t, _ in batch]), strict=True):
            if text and not ids.size:
                raise DataError(f"the tokenizer has no tokens for {text[:20]!r}")
            yield EncodedPiece(ids, len(text.encode()), opens)


def encoder(backend: Tokenizer) -> Encode:
    """Texts to the ids of each; word by word where that gives the same, two to three times as fast.

    Args:
        backend: as `tokenizers.literal` makes it.
    """
    if _splits_at_words(backend):
        return _Words(backend)
    return lambda texts: _encode_whole(backend, texts)


def _encode_whole(backend: Tokenizer, texts: list[str]) -> Iterator[NDArray[np.uint32]]:
    for encoding in backend.encode_batch_fast(texts, add_special_tokens=False):
        yield np.asarray(encoding.ids, dtype=np.uint32)


def _splits_at_words(backend: Tokenizer) -> bool:
    """Whether no token ever reaches over a word seam: true of our own byte-level BPE."""
    ours = Tokenizer(models.BPE())
    ours.pre_tokenizer = word_splitter()
    state, expected = json.loads(backend.to_str()), json.loads(ours.to_str())
    return (
        state["pre_tokenizer"] == expected["pre_tokenizer"]
        and state["normalizer"] is None
        and not state["model"].get("dropout")
        and all(token["special"] for token in state["added_tokens"])
    )


class _Words:
    """Encodes every distinct word once, and looks it up ever after."""

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        self._forget()

    def __call__(self, texts: list[str]) -> Iterator[NDArray[np.uint32]]:
        if len(self._numbers) > _MOST_WORDS:
            self._forget()
        numbers = [self._number(_WORD_SEAM.split(text)) for text in texts]
        self._learn()
        return map(self._ids_of, numbers)

    def _forget(self) -> None:
        self._numbers = _Numbers()
        self._ids = np.empty(0, np.uint32)  # of word after word
        self._starts = np.zeros(1, np.int64)  # where each word's ids start, and the end

    def _number(self, words: list[str]) -> NDArray[np.int64]:
        return np.fromiter(map(self._numbers.__getitem__, words), np.int64, len(words))

    def _learn(self) -> None:
        """Encode the words that were numbered since the last time."""
        new, self._numbers.new = self._numbers.new, []
        ids = list(_encode_whole(self._backend, new))
        ends = self._starts[-1] + np.cumsum([len(word) for word in ids], dtype=np.int64)
        self._ids = np.concatenate([self._ids, *ids])
        self._starts = np.concatenate([self._starts, ends])

    def _ids_of(self, numbers: NDArray[np.int64]) -> NDArray[np.uint32]:
        starts = self._starts[numbers]
        sizes = self._starts[numbers + 1] - starts
        ends = np.cumsum(sizes)
        within = np.arange(ends[-1]) - np.repeat(ends - sizes, sizes)
        return self._ids[np.repeat(starts, sizes) + within]


class _Numbers(dict[str, int]):
    """Words in the order in which they are first asked for; remembers which were new."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, word: str) -> int:
        self.new.append(word)
        self[word] = number = len(self)
        return number


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
