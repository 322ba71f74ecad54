"""Hold out documents for evaluation, always the same ones.

A document's side follows from a hash of its text: it needs no seed, no count and no second pass,
and adding documents to a source moves none of the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

from spikeloom.data.readers import Document

Side = Literal["train", "eval"]


def split_documents(
    documents: Iterable[str], part: Side, eval_share: float = 0.05
) -> Iterator[str]:
    """The documents of one side, see `sides`.

    Args:
        documents: texts.
        part: which side to yield.
        eval_share: expected share of documents in `eval`, between 0 and 1.
    """
    both = sides(map(Document, documents), eval_share)
    return (document.text for side, document in both if side == part)


def sides(documents: Iterable[Document], share: float = 0.05) -> Iterator[tuple[Side, Document]]:
    """Each document with its side.

    Both sides get at least one document: in a source so small that its hashes all fall on one
    side, the one nearest to the other side changes over. A single document is cut at a line
    boundary (if it has one) before its last `share` of characters.

    Args:
        documents: read once, one of them held back until both sides have been seen.
        share: expected share of documents in `eval`, between 0 and 1.
    """
    held: Document | None = None
    held_side: Side = "train"
    both_seen, count = False, 0
    for document in documents:
        count += 1
        side = _side(document.text, share)
        if both_seen:
            yield side, document
        elif held is None:
            held, held_side = document, side
        elif side != held_side:
            both_seen = True
            yield held_side, held
            yield side, document
        else:
            held, released = _nearer_first(held, document, side)
            yield side, released
    if held is None or both_seen:
        return
    if count == 1:
        yield from _cut(held, share)
    else:
        yield ("eval" if held_side == "train" else "train"), held


def _side(text: str, share: float) -> Side:
    return "eval" if _position(text) < share else "train"


def _position(text: str) -> float:
    """A number in [0, 1) that depends on nothing but the text."""
    raw = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(raw) / 2**64


def _nearer_first(a: Document, b: Document, side: Side) -> tuple[Document, Document]:
    """The two documents, the one nearer to the other side first: `eval` lies below `train`."""
    low, high = sorted((a, b), key=lambda document: _position(document.text))
    return (low, high) if side == "train" else (high, low)


def _cut(document: Document, share: float) -> Iterator[tuple[Side, Document]]:
    """Cut at the last line feed before the exact place, unless it lies far off."""
    text = document.text
    exact = round(len(text) * (1 - share))
    earliest = exact - (len(text) - exact)
    at = text.rfind("\n", max(earliest, 0), exact) + 1 or exact
    if text[:at]:
        yield "train", replace(document, text=text[:at])
    if text[at:]:
        yield "eval", replace(document, text=text[at:])
