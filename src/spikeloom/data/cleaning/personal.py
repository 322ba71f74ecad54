"""Personal data that a model should not learn: found, and replaced by `[KIND]`.

A finder gives the spans of a text. Patterns with checksums find what has a fixed form (addresses of
mail and machines, telephone, card and account numbers); presidio, if asked for, finds more of it,
and with a spaCy model also names. A tagger of our own is one more finder.
"""

from __future__ import annotations

import multiprocessing
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from spikeloom.errors import ConfigError, MissingExtraError

FINDERS = ("patterns", "presidio")
_MODELS = ("en_core_web_lg", "en_core_web_md", "en_core_web_sm")
# Not mail (its check wants the network; the pattern finds it), nor places, dates, nationalities and
# addresses of pages, which are no secrets of a person.
_ENTITIES = (
    "PERSON",
    "PHONE_NUMBER",
    "CREDIT_CARD",
    "CRYPTO",
    "IBAN_CODE",
    "IP_ADDRESS",
    "MEDICAL_LICENSE",
    "US_BANK_NUMBER",
    "US_DRIVER_LICENSE",
    "US_ITIN",
    "US_PASSPORT",
    "US_SSN",
    "UK_NHS",
)
_PRESIDIO_CHARACTERS = 100_000  # spaCy refuses a million; names do not reach over a cut at a line


class Span(NamedTuple):
    """Characters `start` to `stop` of a text are personal data of a kind."""

    start: int
    stop: int
    kind: str


Finder = Callable[[str], Iterable[Span]]


def redactor(name: str) -> Finder:
    """The finder of a name in `FINDERS`.

    Raises:
        ConfigError: an unknown name.
        MissingExtraError: presidio is asked for and not installed.
    """
    if name not in FINDERS:
        raise ConfigError(
            f"--redact {name}: expected {' or '.join(FINDERS)}, or a tagger's checkpoint"
        )
    return find_patterns if name == "patterns" else _presidio()


def redacted(text: str, find: Finder) -> tuple[str, Counter[str], list[str]]:
    """The text with `[KIND]` in place of what was found, counts by kind, and what it was.

    Of spans that overlap the earlier, then the longer one counts.
    """
    pieces, at, kinds, found = [], 0, Counter[str](), []
    for start, stop, kind in sorted(find(text), key=lambda span: (span.start, -span.stop)):
        if start >= at:
            pieces += [text[at:start], f"[{kind}]"]
            found.append(text[start:stop])
            kinds[kind] += 1
            at = stop
    return "".join([*pieces, text[at:]]), kinds, found


def find_patterns(text: str) -> list[Span]:
    """Spans that have the form, and the check digits, of personal data."""
    return [
        Span(match.start(), match.end(), kind)
        for kind, pattern, holds in _PATTERNS
        for match in pattern.finditer(text)
        if holds(match.group())
    ]


def _luhn(number: str) -> bool:
    """The check of card numbers (ISO/IEC 7812)."""
    digits = [int(character) for character in number if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _iban(number: str) -> bool:
    """The check of account numbers (ISO 13616): the rearranged number is 1 modulo 97."""
    plain = number.replace(" ", "")
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1


def _ip_address(address: str) -> bool:
    return all(int(part) < 256 for part in address.split("."))


def _telephone(number: str) -> bool:
    return 9 <= sum(character.isdigit() for character in number) <= 15


def _always(_: str) -> bool:
    return True


_PATTERNS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("EMAIL", re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b"), _always),
    ("IBAN", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _iban),
    ("CREDIT_CARD", re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d.-])"), _luhn),
    (
        "SSN",
        re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"),
        _always,
    ),
    ("IP_ADDRESS", re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"), _ip_address),
    # An international number, or a North American one: years and figures have neither form.
    (
        "PHONE",
        re.compile(
            r"(?<![\w+-])(?:\+\d{1,3}(?:[ .-]?\(?\d{2,4}\)?){2,5}"
            r"|(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4})(?![\w-])"
        ),
        _telephone,
    ),
)


def _presidio() -> Finder:
    try:
        from presidio_analyzer import AnalyzerEngine
    except ImportError:
        raise MissingExtraError("presidio_analyzer", "pii") from None
    engine = AnalyzerEngine(nlp_engine=_spacy_engine(), supported_languages=["en"])
    known = sorted({*_ENTITIES}.intersection(engine.get_supported_entities("en")))

    def find(text: str) -> list[Span]:
        spans = []
        for start in range(0, len(text), _PRESIDIO_CHARACTERS):
            part = text[start : start + _PRESIDIO_CHARACTERS]
            for result in engine.analyze(part, "en", entities=known, score_threshold=0.5):
                spans.append(Span(start + result.start, start + result.end, result.entity_type))
        return spans + find_patterns(text)

    return find


def _spacy_engine() -> Any:
    """With the largest English model that is installed; without one, tokens and no names."""
    import spacy
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    installed = [name for name in _MODELS if spacy.util.is_package(name)]
    engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": (installed or ["en"])[0]}])
    if not installed:
        engine.nlp = {"en": spacy.blank("en")}
        if multiprocessing.parent_process() is None:  # said once, not by every worker
            wanted = " or ".join(_MODELS)
            print(f"presidio finds no names: install a spaCy model ({wanted})", file=sys.stderr)
    return engine
