"""Which chunks of the training text a text is nearest to: retrieval without embeddings.

A chunk is `CHUNK_TOKENS` tokens of one document. It is indexed by its token trigrams, of which
every second is kept (chosen by its hash, so that text and chunk keep the same ones). The score of a
chunk is the sum over the distinct trigrams that it shares with the text of log(1 + N / n), N chunks
in all and n with that trigram: BM25 (Robertson and Zaragoza 2009) at k1 = 0, b = 0, because chunks
are equally long and hardly repeat a trigram. It is given as a share of what a chunk that has them
all would score.

The index lies beside the shards, one sorted array each, and is searched through a memory map:

    trace-00000.npy    uint64 [postings], hash of a trigram in the upper half, chunk in the lower
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from spikeloom import tokenizers
from spikeloom.data.conditioning import CHUNK_TOKENS, ChunkIds
from spikeloom.data.packing import is_prepared
from spikeloom.data.shards import PackedTokens, Spliced
from spikeloom.errors import DataError

_GRAM, _EVERY = 3, 2
_BLOCK = 1 << 22  # tokens indexed at a time
_MULTIPLIERS = np.asarray([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D], np.uint32)  # odd: no two ids meet

Hashes = NDArray[np.uint32]


@dataclass(frozen=True)
class Hit:
    """A chunk that was found.

    Attributes:
        chunk: its id, `document.chunk` of the `train` part.
        share: of the best possible score, in [0, 1].
        run: tokens of the longest passage that it has in common with the text, word for word.
        about: what is known of its document.
        text: of the chunk.
    """

    chunk: str
    share: float
    run: int
    about: dict[str, Any]
    text: str


class Trace:
    """The index of a prepared directory; built when it is first asked for.

    Args:
        directory: that `spikeloom data prepare` made.

    Raises:
        DataError: it is not one.
    """

    def __init__(self, directory: str | Path) -> None:
        if not is_prepared(directory):
            raise DataError(f"{directory} is not a directory that `spikeloom data prepare` made")
        self._folder = Path(directory) / "train"
        self._packed = PackedTokens(self._folder)
        self._tokenizer = tokenizers.load(Path(directory) / "tokenizer")
        self._ends = np.append(self._packed.documents[1:], len(self._packed))
        sizes = self._ends - self._packed.documents
        self._firsts = np.append(0, np.cumsum(-(-sizes // CHUNK_TOKENS)))  # chunk of each document
        self._ids = ChunkIds(self._packed)
        self._postings = [self._shard(index) for index in range(len(self._shards()))]

    def __len__(self) -> int:
        """Number of chunks."""
        return int(self._firsts[-1])

    def nearest(self, text: str, most: int = 5) -> list[Hit]:
        """The chunks nearest to a text, best first.

        Args:
            text: such as a generation.
            most: at most so many.

        Raises:
            DataError: the text has too few tokens to compare.
        """
        ids = _encode(self._tokenizer, text)
        grams = np.unique(_kept(_hashes(ids)))
        if not len(grams):
            raise DataError(f"the text has {len(ids)} tokens, too few to trace: give more")
        scores: dict[int, float] = defaultdict(float)
        best = 0.0
        for gram in grams:
            chunks = self._chunks_with(int(gram))
            weight = math.log(1 + len(self) / max(len(chunks), 1))
            best += weight
            for chunk in chunks.tolist():
                scores[chunk] += weight
        found = sorted(scores, key=lambda chunk: (-scores[chunk], chunk))[:most]
        return [self._hit(chunk, scores[chunk] / best, ids) for chunk in found]

    def _hit(self, chunk: int, share: float, ids: NDArray[np.int64]) -> Hit:
        document = int(np.searchsorted(self._firsts, chunk, side="right")) - 1
        begin = int(self._packed.documents[document])
        number = chunk - int(self._firsts[document])
        start = begin + number * CHUNK_TOKENS
        stop = min(start + CHUNK_TOKENS, int(self._ends[document]))
        tokens = np.asarray(self._packed.tokens[max(start, begin + 1) : stop]).astype(np.int64)
        return Hit(
            self._ids.name(document, number),
            share,
            _longest_run(ids, tokens),
            self._about(document),
            str(self._tokenizer.decode(tokens.tolist())),
        )

    def _about(self, document: int) -> dict[str, Any]:
        return next(about for n, about in enumerate(self._packed.about()) if n == document)

    def _chunks_with(self, gram: int) -> NDArray[np.uint64]:
        bounds = np.asarray([gram << 32, (gram + 1) << 32], np.uint64)
        parts = []
        for postings in self._postings:
            start, stop = np.searchsorted(postings, bounds)
            parts.append(postings[start:stop] & np.uint64(0xFFFFFFFF))
        return np.concatenate(parts)

    def _shards(self) -> list[NDArray[Any]]:
        tokens = self._packed.tokens
        return tokens.parts if isinstance(tokens, Spliced) else [tokens]

    def _shard(self, index: int) -> NDArray[np.uint64]:
        file = self._folder / f"trace-{index:05}.npy"
        if not file.exists():
            half = file.with_suffix(".half.npy")
            np.save(half, self._build(index))
            half.replace(file)
        postings: NDArray[np.uint64] = np.load(file, mmap_mode="r")
        return postings

    def _build(self, index: int) -> NDArray[np.uint64]:
        """The sorted postings of a shard."""
        shards = self._shards()
        base, tokens = sum(map(len, shards[:index])), shards[index]
        blocks = range(0, len(tokens), _BLOCK)
        return np.unique(
            np.concatenate(
                [self._block(tokens[at : at + _BLOCK + _GRAM - 1], base + at) for at in blocks]
            )
        )

    def _block(self, tokens: NDArray[Any], base: int) -> NDArray[np.uint64]:
        """The postings of some tokens, which start at an offset of the stream."""
        hashes = _hashes(tokens)
        kept = np.flatnonzero(hashes % _EVERY == 0)
        at = base + kept
        document = np.searchsorted(self._packed.documents, at, side="right") - 1
        begin = self._packed.documents[document]
        chunk = self._firsts[document] + (at - begin) // CHUNK_TOKENS
        postings = hashes[kept].astype(np.uint64) << np.uint64(32) | chunk.astype(np.uint64)
        # Not over the border of a document, nor with the token that opens it.
        return postings[(at > begin) & (at + _GRAM <= self._ends[document])]


def _encode(tokenizer: PreTrainedTokenizerFast, text: str) -> NDArray[np.int64]:
    encoding = tokenizers.literal(tokenizer).encode(text, add_special_tokens=False)
    return np.asarray(encoding.ids, np.int64)


def _hashes(tokens: NDArray[Any]) -> Hashes:
    """Of the trigram at each place, mixed so that the lowest bit depends on all three ids."""
    count = max(len(tokens) - _GRAM + 1, 0)
    mixed = np.zeros(count, np.uint32)
    for offset, multiplier in enumerate(_MULTIPLIERS):
        mixed = (mixed ^ tokens[offset : offset + count].astype(np.uint32)) * multiplier
        mixed ^= mixed >> np.uint32(15)
    return mixed


def _kept(hashes: Hashes) -> Hashes:
    return hashes[hashes % _EVERY == 0]


def _longest_run(a: Sequence[int] | NDArray[Any], b: Sequence[int] | NDArray[Any]) -> int:
    """Length of the longest passage that two texts share."""
    b = np.asarray(b)
    runs, longest = np.zeros(len(b) + 1, np.int64), 0
    for token in a:
        runs[1:] = np.where(b == token, runs[:-1] + 1, 0)
        longest = max(longest, int(runs.max()))
    return longest
