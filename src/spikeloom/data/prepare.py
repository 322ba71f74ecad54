"""A source, tokenised and split once and for all: what `spikeloom train --data DIR` takes as it is.

    DIR/train, DIR/eval    token streams in shards, see `shards.py`
    DIR/tokenizer          that made them
    DIR/prepared.json      what was asked for, and the statistics; written last
    DIR/manifest.json      source, licences, counts and hashes, as beside every output of `data`

A stream is not cut into rows: the trainer does that at whatever context it wants, through memory
maps, so that one directory serves all contexts. After each shard the documents done are noted in
`.progress.json`; a run that was killed goes on there and ends with the same bytes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from spikeloom import tokenizers
from spikeloom.data import sources
from spikeloom.data.manifest import this_command, write_manifest, write_whole
from spikeloom.data.packing import (
    EVAL_SHARE,
    PREPARED,
    PROGRESS,
    SHARD_TOKENS,
    opening_token,
    write_streams,
)
from spikeloom.data.progress import byte_bar
from spikeloom.data.readers import Document
from spikeloom.data.shards import PackedTokens, StreamWriter, read_stream
from spikeloom.data.split import sides
from spikeloom.errors import ConfigError, DataError

PARTS = ("train", "eval")
CONTEXTS = (256, 1024, 2048)
UNKNOWN_LICENCE = "unknown"

_VERSION = 1
_WINDOW_CHARACTERS = 1 << 25  # that documents are shuffled in


@dataclass(frozen=True)
class Layout:
    """How a source is to be prepared.

    Attributes:
        contexts: row lengths, in tokens, that whole rows are counted for.
        eval_share: share of documents held out.
        seed: shuffles the documents, within windows of 32 M characters; None keeps their order.
        shard_tokens: a shard ends with the document in which it reaches so many tokens.
    """

    contexts: tuple[int, ...] = CONTEXTS
    eval_share: float = EVAL_SHARE
    seed: int | None = None
    shard_tokens: int = SHARD_TOKENS

    def __post_init__(self) -> None:
        if not self.contexts or min(self.contexts) < 2:
            raise ConfigError(f"context: {list(self.contexts)} is impossible, expected 2 or more")
        if not 0 < self.eval_share < 1:
            raise ConfigError(
                f"eval_share: {self.eval_share} is impossible, expected within (0, 1)"
            )
        if self.shard_tokens < 1:
            raise ConfigError(
                f"shard_tokens: {self.shard_tokens} is impossible, expected 1 or more"
            )


@dataclass
class _Progress:
    """What is on disk for good: counts of finished shards, and the documents in them."""

    request: dict[str, Any]
    documents: int = 0
    shards: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {part: [] for part in PARTS}
    )

    @classmethod
    def of(cls, out: Path, request: dict[str, Any]) -> _Progress:
        """Where an earlier sitting stopped, or the beginning.

        Raises:
            DataError: `out` holds something else.
        """
        file = out / PROGRESS
        if not file.exists():
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise DataError(f"{out} is not empty: choose another --out")
            return cls(request)
        stored = cls(**json.loads(file.read_text(encoding="utf-8")))
        _same(out, stored.request, request)
        return stored

    def save(self, out: Path) -> None:
        write_whole(out / PROGRESS, json.dumps(vars(self)))


def prepare(
    source: str,
    tokenizer: PreTrainedTokenizerFast,
    out: str | Path,
    layout: Layout | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Tokenise and split a source into a directory; continue if an earlier run was stopped.

    Args:
        source: see `spikeloom.data.sources`; read as a stream, never held in memory.
        tokenizer: of the ids; a copy goes into the directory.
        out: the directory; empty, missing, or of the same preparation, begun or finished.
        layout: split, order and size of shards.
        progress: show a bar, if stderr is a terminal.

    Returns:
        the statistics in `prepared.json`: `parts` and `sources` with `documents`, `bytes` and
        `tokens`, and `rows` by context.

    Raises:
        ConfigError: an impossible layout or tokenizer.
        DataError: the source is unreadable or holds too little, or `out` holds something else.
    """
    out, layout = Path(out), layout or Layout()
    opening = opening_token(tokenizer)
    request = _request(source, tokenizer, layout)
    if (out / PREPARED).exists():
        stored = read_prepared(out)
        _same(out, stored["request"], request)
        return _restate(out, stored, layout)
    done = _Progress.of(out, request)
    tokenizer.save_pretrained(out / "tokenizer")
    done.save(out)
    size = tokenizers.size(tokenizer)
    writers = {p: StreamWriter(out / p, size, opening, done.shards[p]) for p in PARTS}
    _write(source, tokenizer, out, layout, done, writers, progress)
    for part, writer in writers.items():
        if not writer.shards:
            raise DataError(f"{source} has no documents for part '{part}'")
        writer.finish(part=part, tokenizer_fingerprint=request["tokenizer_fingerprint"])
    return _conclude(source, out, request, layout)


def read_prepared(directory: Path) -> dict[str, Any]:
    """What `prepared.json` says: `request` and statistics.

    Raises:
        DataError: it is missing or broken.
    """
    try:
        stored: dict[str, Any] = json.loads((directory / PREPARED).read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise DataError(f"{directory} is not a prepared directory ({exc})") from exc
    return stored


def shuffled(documents: Iterable[Document], seed: int | None) -> Iterator[Document]:
    """Documents in an order that follows from the seed, window by window; None leaves them."""
    if seed is None:
        yield from documents
        return
    rng = random.Random(seed)
    window: list[Document] = []
    characters = 0
    for document in documents:
        window.append(document)
        characters += len(document.text)
        if characters >= _WINDOW_CHARACTERS:
            rng.shuffle(window)
            yield from window
            window, characters = [], 0
    rng.shuffle(window)
    yield from window


def _write(
    source: str,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    layout: Layout,
    done: _Progress,
    writers: dict[str, StreamWriter],
    progress: bool,
) -> None:
    """Write the documents that `done` lacks, noting each shard there when it is whole."""
    # The split looks at documents from the first on, so what is done is skipped behind it.
    assigned = sides(shuffled(sources.records(source), layout.seed), layout.eval_share)
    todo = islice(assigned, done.documents, None)

    def commit() -> None:
        for writer in writers.values():
            done.documents += writer.documents
            writer.close_shard()
        done.shards = {part: writer.shards for part, writer in writers.items()}
        done.save(out)

    with byte_bar(progress, "tokenising") as count:
        write_streams(todo, tokenizer, writers, count, commit, layout.shard_tokens)


def _request(source: str, tokenizer: PreTrainedTokenizerFast, layout: Layout) -> dict[str, Any]:
    """All that decides the bytes of the shards."""
    return {
        "version": _VERSION,
        "source": source,
        "source_fingerprint": sources.fingerprint(source),
        "tokenizer_fingerprint": tokenizers.fingerprint(tokenizer),
        "eval_share": layout.eval_share,
        "seed": layout.seed,
        "shard_tokens": layout.shard_tokens,
    }


def _same(out: Path, stored: dict[str, Any], request: dict[str, Any]) -> None:
    for key, asked in request.items():
        if key != "source" and stored.get(key) != asked:
            raise DataError(
                f"{out} was begun with another {key} ({stored.get(key)!r}, now {asked!r}): "
                "choose another --out"
            )


def _conclude(source: str, out: Path, request: dict[str, Any], layout: Layout) -> dict[str, Any]:
    statistics = _statistics(out, layout.contexts)
    (out / PROGRESS).unlink()
    write_whole(out / PREPARED, json.dumps({"request": request, **statistics}, indent=2) + "\n")
    write_manifest(
        out,
        source=source,
        licence=_licences(out),
        counts=statistics,
        command=this_command(),
        inputs=sources.files(source),
    )
    return statistics


def _restate(out: Path, stored: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """The statistics of a finished directory, for other contexts perhaps."""
    return {**stored, "rows": _rows(stored["parts"], layout.contexts)}


def _statistics(out: Path, contexts: tuple[int, ...]) -> dict[str, Any]:
    parts: dict[str, dict[str, int]] = {}
    per_source: dict[str, dict[str, int]] = {}
    for part in PARTS:
        stream = read_stream(out / part)
        parts[part] = {name: stream[name] for name in ("documents", "bytes", "tokens")}
        for shard in stream["shards"]:
            for name, counts in shard["sources"].items():
                total = per_source.setdefault(name, dict.fromkeys(counts, 0))
                per_source[name] = {key: total[key] + counts[key] for key in counts}
    return {"parts": parts, "sources": per_source, "rows": _rows(parts, contexts)}


def _rows(parts: dict[str, dict[str, int]], contexts: tuple[int, ...]) -> dict[str, dict[str, int]]:
    """Whole rows by context and part."""
    return {
        str(context): {part: counts["tokens"] // context for part, counts in parts.items()}
        for context in contexts
    }


def _licences(out: Path) -> list[str]:
    """All licences that documents name; `unknown` for those that name none."""
    found = set()
    for part in PARTS:
        for about in PackedTokens(out / part).about():
            found.add(about.get("licence", UNKNOWN_LICENCE))
    return sorted(found)
