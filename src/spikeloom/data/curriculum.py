"""From words to conversations: the phases of a curriculum, cut out of any corpus.

    words           distinct words in lower case, the most frequent first
    phrases         2 to 6 words between two marks of punctuation or line ends
    sentences       3 to 40 words from a capital letter or a quotation mark to . ! or ?
    stories         whole paragraphs in a row, 50 to 400 words together, without headings
    conversations   2 to 12 paragraphs in a row with quoted speech in each; what is quoted in a
                    paragraph is a turn, and turns alternate between the two speakers

Of each phase but the first at most `limit` distinct pieces are kept: those whose hashes under the
seed are smallest, which is an even sample of the whole corpus and needs no more memory than it
holds. DIR gets a `.jsonl` with a `text` a phase (conversations also have `messages`), and
`phases.yaml` with their order, sequence length and share of the training budget.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from transformers import PreTrainedTokenizerFast

from spikeloom.data import sources
from spikeloom.data.manifest import this_command, write_manifest, write_whole
from spikeloom.data.progress import byte_bar
from spikeloom.data.readers import Document
from spikeloom.errors import ConfigError, DataError
from spikeloom.tokenizers import literal

PHASES = {"words": 0.05, "phrases": 0.1, "sentences": 0.2, "stories": 0.4, "conversations": 0.25}
"""In their order, with the share of the training budget that `phases.yaml` proposes."""

PHASES_FILE = "phases.yaml"
QUANTILES = (0.1, 0.5, 0.9, 1.0)

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_BREAK = re.compile(r"[^\w\s'’-]+|--+|\n+")
_SENTENCE = re.compile(r"[\"“'‘]?[^\W\d_a-z][^.!?\n]*[.!?]+[\"”'’]?(?=\s|$)")
_PARAGRAPH = re.compile(r"\n\s*\n|\n(?=\s)")
_HEADING = re.compile(r"=+ .* =+|#+ .*|[^a-z]*")
_QUOTED = re.compile(r"“([^“”]+)”|\"([^\"]+)\"")
_CHARACTERS_PER_TOKEN = 3  # without a tokenizer; that of a small vocabulary


@dataclass(frozen=True)
class Piece:
    """A training text of a phase, with what else its record says."""

    text: str
    more: tuple[tuple[str, Any], ...] = ()

    def record(self) -> dict[str, Any]:
        """As a line of the phase's file."""
        return {"text": self.text, **dict(self.more)}


class Sample:
    """At most `limit` distinct pieces out of any number, the same ones in whatever order they come.

    Args:
        limit: of pieces.
        seed: another seed gives another sample.
    """

    def __init__(self, limit: int, seed: int) -> None:
        self.limit = limit
        self.seen = 0
        self._salt = seed.to_bytes(8, "little")
        self._heap: list[tuple[int, str]] = []  # the largest hash first, as a negative number
        self._pieces: dict[str, Piece] = {}

    def add(self, piece: Piece) -> None:
        """Consider a piece."""
        self.seen += 1
        if piece.text in self._pieces:
            return
        raw = hashlib.blake2b(piece.text.encode(), digest_size=8, salt=self._salt).digest()
        entry = (-int.from_bytes(raw), piece.text)
        if len(self._heap) < self.limit:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            del self._pieces[heapq.heapreplace(self._heap, entry)[1]]
        else:
            return
        self._pieces[piece.text] = piece

    def pieces(self) -> list[Piece]:
        """What was kept, in the order of the hashes."""
        return [self._pieces[text] for _, text in sorted(self._heap, reverse=True)]


def build_curriculum(
    source: str,
    out: str | Path,
    limit: int = 50_000,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerFast | None = None,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Cut a source into phases.

    Args:
        source: see `spikeloom.data.sources`.
        out: folder for the phases; its files are overwritten.
        limit: most pieces of a phase.
        seed: of the sample.
        tokenizer: counts lengths in tokens, which the sequence lengths then follow.
        progress: show a bar, if stderr is a terminal.

    Returns:
        by phase: `count`, `found`, `characters`, `tokens` (with a tokenizer), `words`, `context`,
        and `length` with the quantiles of its pieces' lengths in characters and tokens.

    Raises:
        ConfigError: an impossible limit or seed.
        DataError: the source cannot be read, or has no words.
    """
    if limit < 1 or not 0 <= seed < 2**63:
        raise ConfigError(f"limit {limit}, seed {seed}: expected 1 or more, and 0 or more")
    out = Path(out)
    counts: Counter[str] = Counter()
    samples = {phase: Sample(limit, seed) for phase in PHASES if phase != "words"}
    with byte_bar(progress, "curriculum") as count:
        for document in sources.records(source):
            counts.update(word.lower() for word in _WORD.findall(document.text))
            for phase, sample in samples.items():
                for piece in CUTS[phase](document):
                    sample.add(piece)
            count(len(document.text.encode()))
    if not counts:
        raise DataError(f"{source} has no words")
    kept = {"words": _most_frequent(counts, limit)}
    kept |= {phase: sample.pieces() for phase, sample in samples.items()}
    found = {"words": len(counts), **{phase: sample.seen for phase, sample in samples.items()}}
    return _write(source, out, kept, found, tokenizer)


def phrases(document: Document) -> Iterator[Piece]:
    """2 to 6 words between two marks of punctuation or line ends."""
    for part in _BREAK.split(document.text):
        words = part.split()
        if 2 <= len(words) <= 6 and all(map(_WORD.fullmatch, words)):
            yield Piece(" ".join(words))


def sentences(document: Document) -> Iterator[Piece]:
    """3 to 40 words from a capital letter or a quotation mark to . ! or ?"""
    for match in _SENTENCE.finditer(document.text):
        words = match.group().split()
        if 3 <= len(words) <= 40:
            yield Piece(" ".join(words))


def stories(document: Document) -> Iterator[Piece]:
    """Whole paragraphs in a row, 50 to 400 words together; a heading ends a story."""
    group: list[str] = []
    size = 0
    for paragraph in [*_paragraphs(document.text), ""]:
        words = len(paragraph.split())
        heading = _HEADING.fullmatch(paragraph) is not None
        if group and (heading or size + words > 400):
            if 50 <= size <= 400:
                yield Piece("\n\n".join(group))
            group, size = [], 0
        if not heading:
            group.append(paragraph)
            size += words


def conversations(document: Document) -> Iterator[Piece]:
    """2 to 12 paragraphs in a row with quoted speech; an odd last turn is left out."""
    turns: list[str] = []
    for paragraph in [*_paragraphs(document.text), ""]:
        said = [" ".join((a or b).split()) for a, b in _QUOTED.findall(paragraph)]
        if said and len(turns) < 12:
            turns.append(" ".join(said))
            continue
        if len(turns) >= 2:
            yield _conversation(turns[: len(turns) // 2 * 2])
        turns = [" ".join(said)] if said else []


CUTS: dict[str, Callable[[Document], Iterator[Piece]]] = {
    "phrases": phrases,
    "sentences": sentences,
    "stories": stories,
    "conversations": conversations,
}
"""How the phases after `words` are cut out of a document."""


def _conversation(turns: list[str]) -> Piece:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]
    return Piece("\n".join(f"“{turn}”" for turn in turns), (("messages", messages),))


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in _PARAGRAPH.split(text) if part.strip()]


def _most_frequent(counts: Counter[str], limit: int) -> list[Piece]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Piece(word, (("count", count),)) for word, count in ranked[:limit]]


def _write(
    source: str,
    out: Path,
    kept: dict[str, list[Piece]],
    found: dict[str, int],
    tokenizer: PreTrainedTokenizerFast | None,
) -> dict[str, dict[str, Any]]:
    statistics: dict[str, dict[str, Any]] = {}
    context = 1
    for phase, pieces in kept.items():
        facts: dict[str, Any] = {"count": len(pieces), "found": found[phase]}
        (out / f"{phase}.jsonl").unlink(missing_ok=True)
        if pieces:
            lines = (json.dumps(piece.record(), ensure_ascii=False) + "\n" for piece in pieces)
            write_whole(out / f"{phase}.jsonl", "".join(lines))
            measured = _measure([piece.text for piece in pieces], tokenizer)
            context = max(context, _context(measured["length"]))
            facts |= {**measured, "context": context}
        statistics[phase] = facts
    write_whole(out / PHASES_FILE, _phases_yaml(statistics))
    write_manifest(
        out,
        source=source,
        licence="as the source",
        counts=statistics,
        command=this_command(),
        inputs=sources.files(source),
    )
    return statistics


def _measure(texts: list[str], tokenizer: PreTrainedTokenizerFast | None) -> dict[str, Any]:
    characters = [len(text) for text in texts]
    words = sum(len(text.split()) for text in texts)
    facts: dict[str, Any] = {"characters": sum(characters), "words": words}
    facts["length"] = {"characters": _quantiles(characters)}
    if tokenizer is not None:
        encodings = literal(tokenizer).encode_batch_fast(texts, add_special_tokens=False)
        tokens = [len(encoding.ids) for encoding in encodings]
        facts["tokens"] = sum(tokens)
        facts["length"]["tokens"] = _quantiles(tokens)
    return facts


def _quantiles(lengths: Iterable[int]) -> dict[str, int]:
    values = np.quantile(np.fromiter(lengths, np.int64), QUANTILES, method="higher")
    return {f"{share:.0%}": int(value) for share, value in zip(QUANTILES, values, strict=True)}


def _context(length: dict[str, dict[str, int]]) -> int:
    """The power of two, 8 or more, that nine pieces in ten fit in, with the separator."""
    if "tokens" in length:
        tokens = length["tokens"]["90%"]
    else:
        tokens = -(-length["characters"]["90%"] // _CHARACTERS_PER_TOKEN)
    return int(max(8, 1 << tokens.bit_length()))


def _phases_yaml(statistics: dict[str, dict[str, Any]]) -> str:
    there = {phase: facts for phase, facts in statistics.items() if facts["count"]}
    total = sum(PHASES[phase] for phase in there)
    phases = [
        {
            "name": phase,
            "data": f"{phase}.jsonl",
            "context": facts["context"],
            "share": round(PHASES[phase] / total, 4),
        }
        for phase, facts in there.items()
    ]
    head = "# Trained in this order, each on its share of the budget; context is in tokens.\n"
    return f"{head}{yaml.safe_dump({'phases': phases}, sort_keys=False)}"
