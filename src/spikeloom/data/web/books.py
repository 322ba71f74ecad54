"""Collect books of Project Gutenberg, by number, one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spikeloom.data.report import Report, silent
from spikeloom.data.resume import GrowingJsonl
from spikeloom.data.web.book_shelves import SHELVES
from spikeloom.data.web.client import NotFoundError
from spikeloom.data.web.gutenberg import FREE, Gutenberg, NoBookError, unwrap
from spikeloom.errors import DataError, did_you_mean


def numbers_of(shelf: str) -> list[int]:
    """The books of a named shelf.

    Raises:
        DataError: there is no such shelf.
    """
    if shelf not in SHELVES:
        hint = did_you_mean(shelf, SHELVES) or f", expected one of {', '.join(SHELVES)}"
        raise DataError(f"--shelf {shelf} is unknown{hint}")
    return list(SHELVES[shelf])


def collect(
    gutenberg: Gutenberg,
    numbers: Sequence[int],
    out: Path,
    joined: bool = False,
    progress: Report = silent,
) -> Counter[str]:
    """Write the books that are not in the output yet; return how many became what.

    Args:
        gutenberg: where to look.
        numbers: which books.
        out: a JSONL file; fields as in docs/data-web.md.
        joined: one line a paragraph.
        progress: told of every book.

    Raises:
        DataError: none of them is to be had.
    """
    counts: Counter[str] = Counter(books=0, new=0)
    numbers = list(dict.fromkeys(numbers))
    with GrowingJsonl(out, "gutenberg_id") as output:
        for done, number in enumerate(numbers, start=1):
            if number in output:
                continue
            book = _book(gutenberg, number, joined)
            if isinstance(book, dict):
                output.append(book)
            counts["new" if isinstance(book, dict) else book] += 1
            progress("books", done, len(numbers))
        counts["books"] = len(output)
    if not counts["books"]:
        reasons = ", ".join(f"{n} {why}" for why, n in counts.items() if n)
        raise DataError(f"no book found: {reasons}")
    return counts


def _book(gutenberg: Gutenberg, number: int, joined: bool) -> dict[str, Any] | str:
    """The record, or the reason why there is none."""
    try:
        facts = gutenberg.facts(number)
        if facts["rights"] != FREE:
            return "under copyright"
        text = gutenberg.text(number)
    except NotFoundError:
        return "not there"
    except NoBookError as reason:
        return str(reason)
    return {
        "gutenberg_id": number,
        **{key: value for key, value in facts.items() if key != "rights"},
        "text": unwrap(text) if joined else text,
        "licence": "Public domain in the USA",
        "url": f"https://www.gutenberg.org/ebooks/{number}",
        "fetched": datetime.now(UTC).date().isoformat(),
    }
