"""How much text a vocabulary is learned from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

SAMPLE_BYTES = 50_000_000
"""Learned from the first so many bytes: more text hardly changes a vocabulary."""


def sample(documents: Iterable[str]) -> Iterator[str]:
    """The first `SAMPLE_BYTES` of the documents, give or take the last document's."""
    left = SAMPLE_BYTES
    for text in documents:
        yield text[:left]
        left -= len(text.encode())
        if left <= 0:
            return
