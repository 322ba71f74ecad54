"""Named rules that tell prose from what only looks like text, after Gopher and C4.

Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
appendix A1; Raffel et al. 2020, "Exploring the Limits of Transfer Learning …", section 2.2.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields

from spikeloom.data.cleaning.rules import Quality, Unwanted

STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])
_BULLETS = ("•", "-", "*", "‣", "◦", "●", "–")
_ELLIPSES = ("...", "…")
_RUN_WORDS = 20_000  # repeated runs of words show in so many as well as in a whole book


def failed_rule(text: str, limits: Quality) -> str | None:
    """`name (value)` of the first rule that a text breaks, or None.

    A measure is only taken if its limit is set; cheap ones come first.
    """
    for name, value in _measures(text, limits):
        bound, _, _ = name.partition("_")
        limit = getattr(limits, name)
        if value < limit if bound == "min" else value > limit:
            return f"{name} ({value:.3g})"
    return None


def _measures(text: str, limits: Quality) -> Iterator[tuple[str, float]]:
    words = text.split()
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    count, rows = max(len(words), 1), max(len(lines), 1)
    ellipses = text.count("...") + text.count("…")
    lazily = {
        "min_words": lambda: len(words),
        "max_words": lambda: len(words),
        "min_mean_word_length": lambda: sum(map(len, words)) / count,
        "max_mean_word_length": lambda: sum(map(len, words)) / count,
        "max_symbol_ratio": lambda: (text.count("#") + ellipses) / count,
        "max_bullet_lines": lambda: sum(line.startswith(_BULLETS) for line in lines) / rows,
        "max_ellipsis_lines": lambda: sum(line.endswith(_ELLIPSES) for line in lines) / rows,
        "min_alphabetic_words": lambda: sum(map(_has_letter, words)) / count,
        "min_stop_words": lambda: len(STOP_WORDS.intersection(text.lower().split())),
        "max_repeated_lines": lambda: 1 - len(set(lines)) / rows,
        "max_repeated_characters": lambda: _repeated_characters(lines),
        "max_top_bigram": lambda: _top_run(words, 2),
        "max_top_trigram": lambda: _top_run(words, 3),
        "max_top_fourgram": lambda: _top_run(words, 4),
        "max_braces": lambda: (text.count("{") + text.count("}")) / max(len(text), 1),
    }
    for each in fields(limits):
        if getattr(limits, each.name) is not None:
            yield each.name, lazily[each.name]()


def _has_letter(word: str) -> bool:
    return word.isalpha() or any(character.isalpha() for character in word)


def _repeated_characters(lines: list[str]) -> float:
    whole = sum(map(len, lines))
    return 1 - sum(map(len, set(lines))) / whole if whole else 0.0


def _top_run(words: list[str], n: int) -> float:
    """Share of characters in the most frequent run of `n` words; 0 below three times."""
    words = words[:_RUN_WORDS]
    runs = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    if not runs:
        return 0.0
    run, times = runs.most_common(1)[0]
    return times * sum(map(len, run)) / sum(map(len, words)) if times > 2 else 0.0


class UnwantedContent:
    """The phrase lists of a rule file, ready to be searched for."""

    def __init__(self, lists: tuple[Unwanted, ...]) -> None:
        self._lists = [(each, [_Phrase(phrase) for phrase in each.phrases]) for each in lists]

    def found(self, text: str) -> str | None:
        """`name (phrase)` of the first list that a text has too much of, or None."""
        lowered, words = text.lower(), 0
        for each, phrases in self._lists:
            hits = [hit for phrase in phrases for hit in phrase.hits(lowered)]
            if len(hits) < each.least:
                continue
            words = words or len(text.split())
            if 1000 * len(hits) > each.per_thousand * words:
                return f"{each.name} ({hits[0]})"
        return None


class _Phrase:
    """Whole words; `*` stands for any letters, a space for any white space."""

    def __init__(self, phrase: str) -> None:
        words = phrase.lower().split()
        spelt = r"\s+".join(re.escape(word).replace(r"\*", r"\w*") for word in words)
        self._pattern = re.compile(rf"\b{spelt}\b")
        # Nearly every text lacks the longest fixed piece, and looking for that alone is quick.
        self._needle = max(re.split(r"[\s*]+", phrase.lower()), key=len)

    def hits(self, lowered: str) -> list[str]:
        return self._pattern.findall(lowered) if self._needle in lowered else []
