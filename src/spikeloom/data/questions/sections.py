"""Cut an article into sections of about equal length, at paragraphs, best before a heading."""

from __future__ import annotations

import re
from itertools import pairwise

_PARAGRAPH = re.compile(r"\n\s*\n")
_ABBREVIATIONS = ("[A-Za-z]", "Mr", "Dr", "St", "Mrs", "Sgt", "vs")  # no end of a sentence
_NO_END = "".join(rf"(?<!\b{word}\.)" for word in _ABBREVIATIONS)
_SENTENCE = re.compile(rf"(?<=[.!?]){_NO_END}[\"”’)]*\s+(?=[A-Z\"“(])")
_HEADING = re.compile(r"\s*=+ [^\n]* =+")
_PULL = 0.25  # of a section's length: how far the cut moves to stand before a heading


def sections(text: str, count: int = 5) -> list[str]:
    """Contiguous parts of a text, without the white space around them.

    An article with fewer places to cut than needed gives fewer sections.

    Args:
        text: with blank lines between paragraphs, headings as `== Heading ==`.
        count: how many.
    """
    places = [place for place in _places(text, _PARAGRAPH) if not _after_heading(text, place)]
    if len(places) < count - 1:
        places = sorted({*places, *_places(text, _SENTENCE)})
    cuts = [0]
    for number in range(1, count):
        left = [place for place in places if place > cuts[-1]]
        if left:
            cuts.append(_best(left, text, round(number * len(text) / count), len(text) / count))
    parts = (text[start:end].strip() for start, end in pairwise([*cuts, len(text)]))
    return [part for part in parts if part]


def sentences(text: str) -> list[tuple[int, str]]:
    """(where it begins, sentence) for each sentence; headings are left out."""
    cuts = sorted({0, *_places(text, _SENTENCE), *_places(text, re.compile(r"\n+")), len(text)})
    found = ((start, text[start:end].strip()) for start, end in pairwise(cuts))
    return [(start, part) for start, part in found if part and not _HEADING.match(part)]


def _places(text: str, between: re.Pattern[str]) -> list[int]:
    return [match.end() for match in between.finditer(text) if 0 < match.end() < len(text)]


def _after_heading(text: str, place: int) -> bool:
    line = text[:place].rstrip().rpartition("\n")[2]
    return bool(_HEADING.fullmatch(line))


def _best(places: list[int], text: str, ideal: int, length: float) -> int:
    def distance(place: int) -> float:
        return abs(place - ideal) - (_PULL * length if _HEADING.match(text, place) else 0.0)

    return min(places, key=distance)
