"""Check a question/answer pair: the answer has to stand in the section, the question be one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from spikeloom.data.records import Answer

LONGEST_ANSWER = 200  # characters
_QUOTES = {"'": "['’‘]", "’": "['’‘]", "‘": "['’‘]", '"': '["“”]', "“": '["“”]', "”": '["“”]'}
_DASHES = dict.fromkeys("-–—", "[-–—]")


@dataclass(frozen=True)
class Pair:
    """A question and its answer; `start` is the answer's place in the section, if it is known."""

    question: str
    answer: str
    start: int | None = None


def check(
    pair: Pair, section: str, asked: set[str], max_question_words: int | None = None
) -> Answer | str:
    """The answer as it stands in the section, or the reason why the pair is no good.

    Args:
        pair: what was proposed.
        section: the text it is about.
        asked: questions of this section so far, in small letters; a good one is added.
        max_question_words: longest question.
    """
    question = pair.question.strip()
    if not question or not pair.answer.strip():
        return "empty"
    if "?" not in question:
        return "not a question"
    if max_question_words is not None and len(question.split()) > max_question_words:
        return "long question"
    if question.lower() in asked:
        return "asked twice"
    if len(pair.answer) > LONGEST_ANSWER:
        return "long answer"
    found = _span(pair, section)
    if found is None:
        return "answer not in the section"
    asked.add(question.lower())
    return found


def _span(pair: Pair, section: str) -> Answer | None:
    """Where the answer stands: as written, else but for case, quotes, dashes and white space."""
    answer = pair.answer.strip()
    start = section.find(answer) if pair.start is None else pair.start
    if start >= 0 and section[start : start + len(answer)] == answer:
        return Answer(answer, start)
    match = re.search(_loose(answer), section, re.IGNORECASE)
    return Answer(match[0], match.start()) if match else None


def _loose(answer: str) -> str:
    """A pattern for an answer that was copied by a hand that tidies up."""
    words = answer.rstrip(".").split()
    same = _QUOTES | _DASHES
    spelled = ("".join(same.get(c) or re.escape(c) for c in word) for word in words)
    return r"(?<!\w)" + r"\s+".join(spelled) + r"(?!\w)"
