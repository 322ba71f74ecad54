"""Hold out documents for evaluation, always the same ones.

A document's side follows from a hash of its text: it needs no seed, no count and no second pass,
and adding documents to a source moves none of the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Literal

Side = Literal["train", "eval"]


def split_documents(
    documents: Iterable[str], part: Side, eval_share: float = 0.05
) -> Iterator[str]:
    """The documents of one side.

    Both sides get at least one document: in a source so small that its hashes all fall on one
    side, the one nearest to the other side changes over. A single document is cut at a line
    boundary (if it has one) before its last `eval_share` of characters.

    Args:
        documents: texts; read once, one of them held back at most.
        part: which side to yield.
        eval_share: expected share of documents in `eval`, between 0 and 1.
    """
    return (text for side, text in _sides(documents, eval_share) if side == part)


def _sides(documents: Iterable[str], share: float) -> Iterator[tuple[Side, str]]:
    """Each document with its side; holds one back until both sides have been seen."""
    held: str | None = None
    held_side: Side = "train"
    both_seen, count = False, 0
    for text in documents:
        count += 1
        side = _side(text, share)
        if both_seen:
            yield side, text
        elif held is None:
            held, held_side = text, side
        elif side != held_side:
            both_seen = True
            yield held_side, held
            yield side, text
        else:
            held, released = _nearer_first(held, text, side)
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


def _nearer_first(a: str, b: str, side: Side) -> tuple[str, str]:
    """The two texts, the one nearer to the other side first: `eval` lies below `train`."""
    low, high = sorted((a, b), key=_position)
    return (low, high) if side == "train" else (high, low)


def _cut(text: str, share: float) -> Iterator[tuple[Side, str]]:
    """Cut at the last line feed before the exact place, unless it lies far off."""
    exact = round(len(text) * (1 - share))
    earliest = exact - (len(text) - exact)
    at = text.rfind("\n", max(earliest, 0), exact) + 1 or exact
    if text[:at]:
        yield "train", text[:at]
    if text[at:]:
        yield "eval", text[at:]
