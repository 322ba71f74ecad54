"""Questions by rule: a sentence with a gap where a name, a date or a number stood.

No model, no key: capitalised spans, dates, years and numbers are found by pattern, one gap a
sentence, sentences spread over the section. The answer is a span by construction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from spikeloom.data.questions.pairs import Pair
from spikeloom.data.questions.sections import sentences

GAP = "____"
_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_DATE = "|".join(
    (
        rf"\b\d{{1,2}} {_MONTH}(?: \d{{4}})?\b",
        rf"\b{_MONTH} \d{{1,2}}(?:, \d{{4}})?\b",
        rf"\b{_MONTH} \d{{4}}\b",
    )
)
_YEAR = r"(?<=\b[Ii]n )(?:1\d{3}|20\d{2})\b(?![,.]\d)"
_NAME_WORD = r"[A-Z]\w*(?:[’'-](?!s\b)\w+)*"
_NAME = rf"\b{_NAME_WORD}(?: (?:of |the |de |van |von )?{_NAME_WORD})*"
_UNITS = "million|billion|thousand|percent|per cent|kilometres|kilometers|km|metres|meters|miles"
_NUMBER = rf"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?: (?:{_UNITS}))?(?![\w.,]*\d)\b(?!-)"
_KINDS = (  # in the order of asking: dates and names tell more than numbers
    ("date", re.compile(_DATE)),
    ("year", re.compile(_YEAR)),
    ("name", re.compile(_NAME)),
    ("number", re.compile(_NUMBER)),
)
_SHORTEST, _LONGEST = 40, 300  # characters of a sentence that says enough, and not too much


def cloze_pairs(section: str, count: int = 5) -> list[Pair]:
    """At most `count` pairs, from sentences spread evenly over the section."""
    found = [pair for start, text in sentences(section) if (pair := _pair(start, text))]
    if len(found) <= count:
        return found
    return [found[number * len(found) // count] for number in range(count)]


def _pair(start: int, sentence: str) -> Pair | None:
    if not _SHORTEST <= len(sentence) <= _LONGEST:
        return None
    for kind, at, answer in _spans(sentence):
        if sentence.count(answer) == 1:  # or the rest of the sentence gives it away
            gapped = sentence[:at] + GAP + sentence[at + len(answer) :]
            return Pair(f'Which {kind} fills the gap? "{gapped}"', answer, start + at)
    return None


def _spans(sentence: str) -> Iterator[tuple[str, int, str]]:
    for kind, pattern in _KINDS:
        for match in pattern.finditer(sentence):
            # A capital at the very beginning says nothing (any word has it), nor does a letter.
            if kind != "name" or (match.start() > 0 and len(match[0]) > 2):
                yield kind, match.start(), match[0]
