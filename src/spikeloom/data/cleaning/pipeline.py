"""`spikeloom data clean`: documents of a source, put in order and sifted, into one .jsonl file.

Worker processes judge batches of documents, the main process reads, looks for duplicates and
writes, in the order of the source. Memory follows a few batches, and the fingerprints of what was
kept; so does the result follow from source and rules alone, whatever the number of processes.
"""

from __future__ import annotations

import gzip
import json
import lzma
import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO, cast

from spikeloom.data import sources
from spikeloom.data.cleaning.duplicates import Duplicates
from spikeloom.data.cleaning.judge import SAMPLES, Judge, Options, Verdict, glimpse
from spikeloom.data.cleaning.rules import Rules
from spikeloom.data.manifest import this_command, write_manifest
from spikeloom.data.progress import byte_bar
from spikeloom.data.readers import Document
from spikeloom.errors import DataError

_BATCH_CHARACTERS = 1 << 21
_BATCH_DOCUMENTS = 2000
_XZ_PRESET = 1  # three times as fast as the usual 6, a tenth larger


@dataclass(frozen=True)
class Labelled:
    """A source, and what is said of all its documents.

    Attributes:
        source: see `spikeloom.data.sources`.
        about: put into every record (`source`, `category`, `licence`), over what it says itself.
        category_column: column that names a document's category; of a list its first entry.
    """

    source: str
    about: Mapping[str, str] = field(default_factory=dict)
    category_column: str | None = None

    def documents(self) -> Iterator[Document]:
        """The documents with their labels."""
        for document in sources.records(self.source):
            about = {**document.about, **self.about}
            if self.category_column is not None:
                about["category"] = self._category(document, self.category_column)
            yield replace(document, about=about)

    def _category(self, document: Document, column: str) -> str | None:
        if column not in document.about:
            has = ", ".join(document.about) or "no other columns"
            raise DataError(f"{self.source}: no column '{column}' for the category; it has {has}")
        value = document.about[column]
        first = value[0] if isinstance(value, list) and value else value
        return first if isinstance(first, str) else None


@dataclass
class Report:
    """What came in, what stayed, what was dropped and changed, with samples."""

    read: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    samples: dict[str, list[str]] = field(default_factory=dict)

    def count(self, verdict: Verdict) -> None:
        """Add a document that was judged."""
        source = self.sources.setdefault(
            str(verdict.document.about.get("source", "unnamed")), Counter()
        )
        self.changed.update(verdict.changes)
        for name, found in verdict.shown.items():
            self._show(name, found)
        if verdict.dropped is None:
            size = len(verdict.document.text.encode())
            self.kept.update(documents=1, bytes=size)
            source.update(documents=1, bytes=size)
        else:
            source.update(dropped=1)
            self.dropped[verdict.dropped] += 1
            self._show(verdict.dropped, [f"{verdict.why}: {glimpse(verdict.document)}"])

    def _show(self, name: str, found: list[str]) -> None:
        shown = self.samples.setdefault(name, [])
        shown += found[: SAMPLES - len(shown)]


def clean(
    labelled: Sequence[Labelled],
    out: str | Path,
    rules: Rules,
    options: Options | None = None,
    progress: bool = True,
) -> Report:
    """Clean sources into one file, with a manifest beside it.

    Args:
        labelled: sources; duplicates are looked for over all of them, and the first stays.
        out: `.jsonl`, `.jsonl.gz` or `.jsonl.xz`; overwritten when the new one is whole.
        rules: what to drop.
        options: what else to do.
        progress: show a bar, if stderr is a terminal.

    Raises:
        DataError: a source cannot be read, `out` has another suffix, or nothing is left.
        ConfigError, MissingExtraError: a rule cannot be had.
    """
    out, options, report = Path(out), options or Options(), Report()
    judge = Judge(rules, options)  # also in the main process: to fail before the first byte
    with _new_file(out) as file, byte_bar(progress, "cleaning") as count:
        documents = _counted(labelled, report, count)
        seen = Duplicates(rules.near_duplicates)
        for verdict in _judged(documents, judge, rules, options):
            if verdict.dropped is None:
                _drop_duplicate(verdict, seen)
            report.count(verdict)
            if verdict.dropped is None:
                file.write(_line(verdict.document))
        if not report.kept:
            raise DataError(f"nothing is left of {report.read['documents']} documents: see --rules")
    _note(out, labelled, report)
    return report


def _judged(
    documents: Iterable[Document], judge: Judge, rules: Rules, options: Options
) -> Iterator[Verdict]:
    """Verdicts in the order of the documents; a few batches are under way at any time."""
    if options.processes == 1:
        yield from map(judge, documents)
        return
    with ProcessPoolExecutor(
        options.processes, multiprocessing.get_context("spawn"), _start_worker, (rules, options)
    ) as pool:
        under_way: deque[Future[list[Verdict]]] = deque()
        try:
            for batch in _batches(documents):
                under_way.append(pool.submit(_judge_batch, batch))
                if len(under_way) > 2 * options.processes:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker: Callable[[Document], Verdict]


def _start_worker(rules: Rules, options: Options) -> None:
    global _worker
    _worker = Judge(rules, options)


def _judge_batch(batch: list[Document]) -> list[Verdict]:
    return [_worker(document) for document in batch]


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _counted(
    labelled: Sequence[Labelled], report: Report, count: Callable[[int], None]
) -> Iterator[Document]:
    for each in labelled:
        for document in each.documents():
            size = len(document.text.encode())
            report.read.update(documents=1, bytes=size)
            count(size)
            yield document


def _drop_duplicate(verdict: Verdict, seen: Duplicates) -> None:
    twin = seen.find(verdict.digest, verdict.signature)
    if twin is None:
        seen.add(glimpse(verdict.document), verdict.digest, verdict.signature)
    else:
        kind, first = twin
        verdict.dropped, verdict.why = f"duplicate: {kind}", f"of {first}"


def _line(document: Document) -> str:
    about = {name: value for name, value in document.about.items() if value is not None}
    record = {**about, "text": document.text}
    return json.dumps(record, ensure_ascii=False, default=str) + "\n"


def _note(out: Path, labelled: Sequence[Labelled], report: Report) -> None:
    write_manifest(
        out,
        source=", ".join(each.source for each in labelled),
        licence=[each.about.get("licence", "unknown") for each in labelled],
        counts=vars(report),
        command=this_command(),
        inputs=[file for each in labelled for file in sources.files(each.source)],
    )


@contextmanager
def _new_file(out: Path) -> Iterator[TextIO]:
    """A file beside `out` that takes its place when all went well."""
    if not out.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.xz")):
        raise DataError(f"{out}: name a .jsonl, .jsonl.gz or .jsonl.xz file")
    out.parent.mkdir(parents=True, exist_ok=True)
    half = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with _open(half, out.suffix) as file:
            yield file
        half.replace(out)
    finally:
        half.unlink(missing_ok=True)


def _open(path: Path, suffix: str) -> TextIO:
    file: Any
    if suffix == ".xz":
        file = lzma.open(path, "wt", encoding="utf-8", preset=_XZ_PRESET)  # noqa: SIM115
    elif suffix == ".gz":
        file = gzip.open(path, "wt", encoding="utf-8")  # noqa: SIM115
    else:
        file = path.open("w", encoding="utf-8")
    return cast(TextIO, file)
