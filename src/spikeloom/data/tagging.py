"""Labelled spans as what a tagger learns: words, BIO tags, word pieces, rows of a given length.

    text     Call  Ann  Lee  .            words: runs of letters and digits, or one other character
    tags     O     B-P  I-P  O            (Ramshaw and Marcus 1995, in the form of CoNLL-2003)
    pieces   Ca ll Ann  Le e .            each word is cut by the tokenizer on its own
    labels   0  -  1    2  - 0            the first piece carries the label, `-` is -100

Words are small, so that a span may end before a full stop; whether two words touch is kept by the
space that the tokenizer sees before the second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikeloom import tokenizers
from spikeloom.data.readers import RECORD_SUFFIXES
from spikeloom.data.records import Span, Tagged, read_records
from spikeloom.errors import ConfigError, DataError, did_you_mean

OUTSIDE = "O"
UNLABELLED = -100  # what PyTorch's cross-entropy leaves out

_WORD = re.compile(r"\w+|[^\w\s]")
_HELD_OUT = ("dev", "valid", "validation")

Word = tuple[int, int]  # characters: start, end


def read_tagged(source: str) -> list[Tagged]:
    """The labelled texts of a source, see `records.read_records`.

    Raises:
        DataError: a record is broken or of another kind, or there is not one labelled span.
    """
    records = []
    for i, record in enumerate(read_records(source)):
        if not isinstance(record, Tagged):
            kind = type(record).__name__.lower()
            raise DataError(
                f"{source}, record {i}: a {kind} has no labels: expected tokens with tags, or text "
                "with spans"
            )
        records.append(record)
    if not any(record.spans for record in records):
        raise DataError(f"{source}: {len(records)} records without a labelled span: no labels")
    return records


def parts(source: str) -> tuple[str, str | None]:
    """What to learn from, and what is held out, where a folder holds `train.*` and `dev.*`.

    Of any other source all is learned from, and None is returned for the rest.
    """
    folder = Path(source)
    if not folder.is_dir():
        return source, None
    files = {file.name.partition(".")[0]: file for file in folder.iterdir() if _is_data(file)}
    held_out = [str(files[name]) for name in _HELD_OUT if name in files]
    if "train" in files and held_out:
        return str(files["train"]), held_out[0]
    return source, None


def _is_data(file: Path) -> bool:
    return any(file.name.partition(".")[2].startswith(suffix[1:]) for suffix in RECORD_SUFFIXES)


def label_names(records: Iterable[Tagged]) -> tuple[str, ...]:
    """O, then B and I of every type, in the order of the alphabet: the classes of a tagger."""
    types = sorted({span.label for record in records for span in record.spans})
    return (OUTSIDE, *(f"{mark}-{name}" for name in types for mark in "BI"))


def require_labels(records: Sequence[Tagged], labels: Sequence[str], source: str) -> None:
    """Refuse a type that a tagger has no class for.

    Raises:
        DataError: names the first such span.
    """
    known = sorted({label[2:] for label in labels if label != OUTSIDE})
    for i, record in enumerate(records):
        for j, span in enumerate(record.spans):
            if span.label not in known:
                hint = did_you_mean(span.label, known)
                raise DataError(
                    f"{source}, record {i}, spans[{j}].label: {span.label!r} is unknown to the "
                    f"model{hint}: it tags {', '.join(known)}"
                )


def words_of(text: str) -> list[Word]:
    """Where the words of a text stand."""
    return [match.span() for match in _WORD.finditer(text)]


def tags_of(words: Sequence[Word], spans: Sequence[Span]) -> list[str]:
    """BIO tags of words; a span that cuts a word takes all of it, unless another has it."""
    tags = [OUTSIDE] * len(words)
    for span in spans:
        mark = "B"
        for i, (start, end) in enumerate(words):
            if start < span.end and end > span.start and tags[i] == OUTSIDE:
                tags[i], mark = f"{mark}-{span.label}", "I"
    return tags


def spans_of(words: Sequence[Word], tags: Sequence[str]) -> tuple[Span, ...]:
    """The spans that tags mean; an I after another type, or after O, begins a span (CoNLL)."""
    spans: list[Span] = []
    before = OUTSIDE
    for (start, end), tag in zip(words, tags, strict=True):
        if tag[:2] == "I-" and before[2:] == tag[2:]:
            spans[-1] = Span(spans[-1].start, end, tag[2:])
        elif tag != OUTSIDE:
            spans.append(Span(start, end, tag[2:]))
        before = tag
    return tuple(spans)


@dataclass(frozen=True)
class Row:
    """A text, or a part of one, as a model reads it.

    Attributes:
        input_ids: the document mark and the pieces.
        labels: the class of a word at its first piece, `UNLABELLED` elsewhere.
    """

    input_ids: list[int]
    labels: list[int]


@dataclass
class RowMaker:
    """Cuts texts into rows.

    Args:
        tokenizer: of the model.
        labels: its classes, as `label_names` gives them.
        context: the most tokens in a row, the document mark included.
    """

    tokenizer: Any
    labels: Sequence[str]
    context: int
    _pieces: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.context < 2:
            raise ConfigError(f"training.context: {self.context} leaves no room for a word")
        self._classes = {label: i for i, label in enumerate(self.labels)}
        self._backend = tokenizers.literal(self.tokenizer)

    def rows(self, text: str, words: Sequence[Word], tags: Sequence[str]) -> list[Row]:
        """All words of a text in as many rows as it takes, broken behind a sentence if possible."""
        pieces = [self._cut(text, word) for word in words]
        classes = [self._classes[tag] for tag in tags]
        rows, start = [], 0
        while start < len(words):
            end = self._end(text, words, pieces, start)
            rows.append(self._row(pieces[start:end], classes[start:end]))
            start = end
        return rows

    def _cut(self, text: str, word: Word) -> list[int]:
        """The pieces of a word, with the space before it where there is white space."""
        start, end = word
        spaced = start > 0 and text[start - 1].isspace()
        written = " " * spaced + text[start:end]
        if written not in self._pieces:
            ids = self._backend.encode(written, add_special_tokens=False).ids
            self._pieces[written] = ids[: self.context - 1]
        return self._pieces[written]

    def _end(
        self, text: str, words: Sequence[Word], pieces: Sequence[list[int]], start: int
    ) -> int:
        """One past the last word of the row that begins with word `start`."""
        end, room = start, self.context - 1
        while end < len(words) and len(pieces[end]) <= room:
            room -= len(pieces[end])
            end += 1
        if end == len(words):
            return end
        for i in range(end, start + (end - start) // 2, -1):
            gap = text[words[i - 1][1] : words[i][0]]
            if "\n" in gap or (gap and text[words[i - 1][0]] in ".!?"):
                return i
        return end

    def _row(self, pieces: Sequence[list[int]], classes: Sequence[int]) -> Row:
        input_ids, labels = [self.tokenizer.bos_token_id], [UNLABELLED]
        for ids, label in zip(pieces, classes, strict=True):
            input_ids += ids
            labels += [label] + [UNLABELLED] * (len(ids) - 1)
        return Row(input_ids, labels)


def labelled_rows(records: Iterable[Tagged], maker: RowMaker) -> list[Row]:
    """The rows of records, to learn from."""
    rows = []
    for record in records:
        words = words_of(record.text)
        rows += maker.rows(record.text, words, tags_of(words, record.spans))
    return rows
