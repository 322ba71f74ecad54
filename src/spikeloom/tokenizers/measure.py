"""What a tokenizer makes of a text: how short, how fast, and how much of its vocabulary it uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from time import process_time

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from spikeloom.errors import DataError
from spikeloom.tokenizers import literal, size

_NO_CHARACTER = "\ufffd"  # what bytes decode to that are not a whole character


@dataclass(frozen=True)
class Measurement:
    """Figures of one tokenizer on one text.

    Attributes:
        vocab_size: embeddings that a model needs for it.
        tokens: that the text became.
        bytes_per_token: UTF-8 bytes of text; the larger, the shorter the sequences.
        characters_per_token: the same in Unicode characters.
        tokens_per_word: fertility; words are what white space separates.
        megabytes_per_second: of encoding, documents one after the other, by processor time: what
            one core does, whatever else the machine is at.
        vocabulary_use: share of the vocabulary that occurs.
        byte_share: share of tokens that say less than a character, or that it is unknown.
        restored: share of documents that come back exactly.
    """

    vocab_size: int
    tokens: int
    bytes_per_token: float
    characters_per_token: float
    tokens_per_word: float
    megabytes_per_second: float
    vocabulary_use: float
    byte_share: float
    restored: float


def measure(tokenizer: PreTrainedTokenizerFast, documents: Sequence[str]) -> Measurement:
    """Encode and decode some documents, special tokens in them taken as text.

    Raises:
        DataError: there is no text in them, or the tokenizer has no tokens for it.
    """
    backend, count = literal(tokenizer), size(tokenizer)
    began = process_time()
    encoded = [_ids(backend, text) for text in documents]
    seconds = process_time() - began
    uses = Counter(token for ids in encoded for token in ids)
    tokens = uses.total()
    if not tokens:
        raise DataError("there are no tokens to measure: the text is empty, or not for this one")
    partial = [i for i in uses if i == tokenizer.unk_token_id or _is_partial(backend, i)]
    text_bytes = sum(len(text.encode()) for text in documents)
    back = [backend.decode(ids, skip_special_tokens=False) for ids in encoded]
    return Measurement(
        vocab_size=count,
        tokens=tokens,
        bytes_per_token=text_bytes / tokens,
        characters_per_token=sum(map(len, documents)) / tokens,
        tokens_per_word=tokens / max(1, sum(len(text.split()) for text in documents)),
        megabytes_per_second=text_bytes / 1e6 / seconds,
        vocabulary_use=len(uses) / count,
        byte_share=sum(uses[i] for i in partial) / tokens,
        restored=sum(a == b for a, b in zip(back, documents, strict=True)) / len(documents),
    )


@dataclass(frozen=True)
class Piece:
    """A token and where it is: `text[start:end]`, in characters."""

    id: int
    token: str
    start: int
    end: int


def pieces(tokenizer: PreTrainedTokenizerFast, text: str) -> list[Piece]:
    """The tokens of a text in order; a special token in it is spelt, not obeyed."""
    encoding = literal(tokenizer).encode(text, add_special_tokens=False)
    triples = zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True)
    return [Piece(number, token, *offsets) for number, token, offsets in triples]


def _ids(backend: Tokenizer, text: str) -> list[int]:
    """As packing does it, but one text at a time, so that one core works."""
    (encoding,) = backend.encode_batch_fast([text], add_special_tokens=False)
    return list(encoding.ids)


def _is_partial(backend: Tokenizer, number: int) -> bool:
    return _NO_CHARACTER in backend.decode([number], skip_special_tokens=False)
