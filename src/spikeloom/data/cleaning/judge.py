"""The verdict on one document: put in order, then kept or dropped by the first rule it breaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from spikeloom.data.cleaning.duplicates import Signer
from spikeloom.data.cleaning.language import LanguageFilter
from spikeloom.data.cleaning.personal import Finder, redacted, redactor
from spikeloom.data.cleaning.quality import UnwantedContent, failed_rule
from spikeloom.data.cleaning.rules import Rules
from spikeloom.data.cleaning.text import marked_unknown, normalised, without_unknown
from spikeloom.data.readers import Document
from spikeloom.errors import ConfigError

SAMPLES = 3  # shown of what each rule dropped
SAMPLE_CHARACTERS = 80


@dataclass(frozen=True)
class Options:
    """What to do besides the rules.

    Attributes:
        redact: finder of personal data to replace, or its name in `personal.FINDERS`; None leaves
            them. With worker processes a finder is pickled.
        lossy_tokenizer: directory of a tokenizer; chunks it has no tokens for are removed.
        processes: workers; 1 does all in this process.
    """

    redact: str | Finder | None = None
    lossy_tokenizer: str | None = None
    processes: int = 2

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ConfigError(f"--processes {self.processes}: expected 1 or more")


@dataclass
class Verdict:
    """What a worker says of a document: itself put in order, or why it was dropped."""

    document: Document
    dropped: str | None = None  # name of the rule
    why: str = ""
    digest: bytes = b""
    signature: Any = None
    changes: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[str]] = field(default_factory=dict)  # samples of what was taken out


class Judge:
    """All rules that look at one document alone.

    Raises:
        ConfigError, MissingExtraError: a rule cannot be had.
    """

    def __init__(self, rules: Rules, options: Options) -> None:
        self._rules = rules
        self._language = LanguageFilter(rules.languages, rules.language_characters)
        self._unwanted = UnwantedContent(rules.unwanted)
        self._unknown = _unknown_of(options.lossy_tokenizer)
        find = options.redact
        self._find = redactor(find) if isinstance(find, str) else find
        self._signer = Signer(near=rules.near_duplicates is not None)

    def __call__(self, document: Document) -> Verdict:
        """The verdict on a document."""
        verdict = Verdict(replace(document, text=normalised(document.text)))
        self._take_out_unknown(verdict)
        self._drop(verdict)
        if verdict.dropped is None:
            self._redact(verdict)
            verdict.digest, verdict.signature = self._signer.sign(verdict.document.text)
        return verdict

    def _take_out_unknown(self, verdict: Verdict) -> None:
        text, lost = without_unknown(verdict.document.text, self._unknown)
        if lost:
            verdict.document = replace(verdict.document, text=text)
            verdict.changes["unknown chunks removed"] += len(lost)
            verdict.shown["unknown chunks removed"] = [short(each) for each in lost[:SAMPLES]]

    def _drop(self, verdict: Verdict) -> None:
        text = verdict.document.text
        if language := self._language.foreign(text):
            verdict.dropped, verdict.why = "language", language
        elif rule := failed_rule(text, self._rules.quality):
            verdict.dropped, verdict.why = f"quality: {rule.partition(' ')[0]}", rule
        elif unwanted := self._unwanted.found(text):
            verdict.dropped, verdict.why = f"unwanted: {unwanted.partition(' ')[0]}", unwanted
        elif not text.strip():
            verdict.dropped, verdict.why = "empty", "nothing is left"

    def _redact(self, verdict: Verdict) -> None:
        if self._find is None:
            return
        text, kinds, found = redacted(verdict.document.text, self._find)
        verdict.document = replace(verdict.document, text=text)
        for kind, number in kinds.items():
            verdict.changes[f"redacted: {kind}"] += number
        if found:  # never in clear: the report is published with the data
            verdict.shown["redacted"] = [
                f"{kind}: {n} in one document" for kind, n in kinds.items()
            ]


def glimpse(document: Document) -> str:
    """A document in a line: its title, or how it begins."""
    title = document.about.get("title")
    return str(title) if title else short(document.text)


def short(text: str) -> str:
    """The beginning of a text, in a line."""
    line = " ".join(text.split())
    return line if len(line) <= SAMPLE_CHARACTERS else f"{line[:SAMPLE_CHARACTERS]}…"


def _unknown_of(tokenizer: str | None) -> Callable[[str], bool]:
    """Whether a text was, or would be, written with the unknown token."""
    if tokenizer is None:
        return marked_unknown
    from spikeloom import tokenizers

    words = tokenizers.load(tokenizer)
    if words.unk_token_id is None:
        raise ConfigError(f"{tokenizer} has no unknown token: it is not lossy")
    backend, unknown = tokenizers.literal(words), words.unk_token_id

    def lossy(text: str) -> bool:
        return marked_unknown(text) or unknown in backend.encode(text, add_special_tokens=False).ids

    return lossy
