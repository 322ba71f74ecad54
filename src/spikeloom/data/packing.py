"""Tokenise a source once, keep it as a memory-mapped stream, and cut the stream into rows.

Streams (`shards.py` has the format) lie in the cache (`$SPIKELOOM_CACHE`, else
`~/.cache/spikeloom`), or in a directory that `spikeloom data prepare` made.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from spikeloom import tokenizers
from spikeloom.data import sources
from spikeloom.data.encoding import encode_documents
from spikeloom.data.progress import byte_bar
from spikeloom.data.readers import Document
from spikeloom.data.shards import PackedTokens, StreamWriter
from spikeloom.data.split import sides
from spikeloom.errors import ConfigError, DataError

Part = Literal["all", "train", "eval"]

PREPARED = "prepared.json"
"""What `spikeloom data prepare` leaves in its directory, beside `train`, `eval` and `tokenizer`."""

PROGRESS = ".progress.json"
"""Lies there in its stead until it is finished."""

SHARD_TOKENS = 1 << 26
EVAL_SHARE = 0.05

_VERSION = 2  # raise it when the same text would be packed differently


class TokenRows(Dataset[dict[str, Tensor]]):
    """Rows of `context` tokens, one after the other, over the whole stream.

    Documents run on from row to row and there is no padding; an incomplete last row is dropped.
    A row is `input_ids` and `labels`, both int64 [context] and equal (the model shifts them).

    Args:
        packed: the stream.
        context: tokens in a row.
        position_ids: add `position_ids`, int64 [context], which count from 0 at the start of the
            row and again at every document, so that a model keeps documents apart.
        limit: at most this many rows, spread evenly over the stream.

    Raises:
        DataError: there is less than one row.
    """

    def __init__(
        self,
        packed: PackedTokens,
        context: int,
        position_ids: bool = False,
        limit: int | None = None,
    ) -> None:
        if context < 1:
            raise ConfigError(f"training.context must be at least 1, not {context}")
        if context > len(packed):
            short = f"context {context} is longer than the data ({len(packed)} tokens)"
            raise DataError(f"{short}: use more text or --set training.context={len(packed)}")
        self.packed = packed
        self.context = context
        self.position_ids = position_ids
        self.whole = len(packed) // context
        self.rows = self.whole if limit is None else min(limit, self.whole)

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        start = index * self.whole // self.rows * self.context
        tokens = self.packed.tokens[start : start + self.context]
        ids = torch.from_numpy(np.asarray(tokens).astype(np.int64))
        row = {"input_ids": ids, "labels": ids.clone()}
        if self.position_ids:
            row["position_ids"] = torch.from_numpy(self._positions(start))
        return row

    def _positions(self, start: int) -> NDArray[np.int64]:
        where = np.arange(start, start + self.context)
        document = np.searchsorted(self.packed.documents, where, side="right") - 1
        return where - np.maximum(self.packed.documents[document], start)


def pack(
    source: str,
    tokenizer: PreTrainedTokenizerFast,
    part: Part = "all",
    eval_share: float = EVAL_SHARE,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> PackedTokens:
    """The tokens of a source, from the cache if they were packed before.

    Args:
        source: see `spikeloom.data.sources`; or a prepared directory, which is taken as it is.
        tokenizer: its `bos_token`, or else its `eos_token`, opens every document.
        part: `train` and `eval` are the two sides of `split_documents`.
        eval_share: share of documents held out; without meaning for `all`, and for a prepared
            directory, where it was decided when it was made.
        cache_dir: in place of `$SPIKELOOM_CACHE`.
        progress: show a bar, if stderr is a terminal.

    Raises:
        ConfigError: impossible `part` or `eval_share`, or a tokenizer with neither bos nor eos.
        DataError: the source cannot be read, the cache cannot be written, or a directory was
            prepared with another tokenizer.
    """
    _check(part, eval_share)
    opening = opening_token(tokenizer)
    if is_prepared(source):
        return _prepared(Path(source), tokenizer, part)
    about = {
        "version": _VERSION,
        "source": source,
        "source_fingerprint": sources.fingerprint(source),
        "tokenizer_fingerprint": tokenizers.fingerprint(tokenizer),
        "part": part,
        "eval_share": None if part == "all" else eval_share,
    }
    directory = cache_root(cache_dir) / "tokens" / _key(about)
    try:
        return PackedTokens(directory)
    except DataError:
        pass  # not there yet, or damaged: both call for packing
    with _new_entry(directory) as folder, byte_bar(progress, f"tokenising ({part})") as count:
        writer = StreamWriter(folder, tokenizers.size(tokenizer), opening)
        documents = _documents(source, part, eval_share)
        write_streams(documents, tokenizer, {part: writer}, count, writer.close_shard)
        if not writer.shards:
            raise DataError(f"{source} has no documents for part '{part}'")
        writer.finish(**about, date=datetime.now(UTC).isoformat())
    return PackedTokens(directory)


def write_streams(
    documents: Iterable[tuple[str, Document]],
    tokenizer: PreTrainedTokenizerFast,
    writers: Mapping[str, StreamWriter],
    count: Callable[[int], None],
    commit: Callable[[], None],
    shard_tokens: int = SHARD_TOKENS,
) -> None:
    """Tokenise documents, each to the writer that is named with it.

    Args:
        documents: (name of a writer, document).
        tokenizer: of the ids.
        writers: by name.
        count: is told the bytes of text as they are written.
        commit: called between two documents when `shard_tokens` or more have been written since
            the last time, and at the end; it closes the shards.
        shard_tokens: tokens of a shard, over all writers.
    """
    waiting: deque[tuple[str, Document]] = deque()

    def texts() -> Iterator[str]:
        for name, document in documents:
            waiting.append((name, document))
            yield document.text

    writer = next(iter(writers.values()))
    try:
        for piece in encode_documents(texts(), tokenizer):
            if piece.opens_document:
                if sum(each.tokens for each in writers.values()) >= shard_tokens:
                    commit()
                name, document = waiting.popleft()
                writer = writers[name]
                writer.open_document(document.about)
            writer.add(piece)
            count(piece.text_bytes)
        commit()
    finally:
        for each in writers.values():
            each.close()


def is_prepared(source: str | Path) -> bool:
    """Whether a source is a directory that `spikeloom data prepare` made.

    Raises:
        DataError: it was begun, but not finished.
    """
    if (Path(source) / PROGRESS).is_file():
        raise DataError(f"{source} is not finished: run its `spikeloom data prepare` once more")
    return (Path(source) / PREPARED).is_file()


def _prepared(directory: Path, tokenizer: PreTrainedTokenizerFast, part: Part) -> PackedTokens:
    parts = ("train", "eval") if part == "all" else (part,)
    packed = PackedTokens(*(directory / name for name in parts))
    if packed.manifest["tokenizer_fingerprint"] != tokenizers.fingerprint(tokenizer):
        has, want = packed.manifest["vocab_size"], tokenizers.size(tokenizer)
        raise DataError(
            f"{directory} was prepared with another tokenizer ({has} tokens, this one has {want}): "
            f"use the one in {directory / 'tokenizer'}, or prepare the data again"
        )
    return packed


def _documents(source: str, part: Part, eval_share: float) -> Iterator[tuple[str, Document]]:
    """The documents of a part, each with the part's name."""
    if part == "all":
        return ((part, document) for document in sources.records(source))
    both = sides(sources.records(source), eval_share)
    return ((side, document) for side, document in both if side == part)


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """`cache_dir`, else `$SPIKELOOM_CACHE`, else `~/.cache/spikeloom`."""
    chosen = cache_dir or os.environ.get("SPIKELOOM_CACHE") or "~/.cache/spikeloom"
    return Path(chosen).expanduser()


def _check(part: str, eval_share: float) -> None:
    if part not in ("all", "train", "eval"):
        raise ConfigError(f"part '{part}' is unknown: use all, train or eval")
    if not 0 < eval_share < 1:
        raise ConfigError(f"eval_share must lie between 0 and 1, not {eval_share}")


def opening_token(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id that opens every document: bos, or else eos.

    Raises:
        ConfigError: the tokenizer has neither.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    opening = eos if bos is None else bos
    if opening is None:
        raise ConfigError("the tokenizer has neither bos_token nor eos_token: set one of them")
    return int(opening)


def _key(about: dict[str, Any]) -> str:
    # The fingerprint stands for the source: "a" and "./a" are the same files.
    decides = {name: value for name, value in about.items() if name != "source"}
    return hashlib.blake2b(json.dumps(decides).encode(), digest_size=16).hexdigest()


@contextmanager
def _new_entry(directory: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `directory` when all went well."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{directory.name}-", dir=directory.parent, ignore_cleanup_errors=True
        ) as temporary:
            folder = Path(temporary) / "entry"
            folder.mkdir()
            yield folder
            _replace(folder, directory)
    except OSError as exc:
        where = f"{directory.parent}: {exc.strerror or exc}"
        raise DataError(f"cannot write {where}: set $SPIKELOOM_CACHE to another folder") from exc


def _replace(folder: Path, directory: Path) -> None:
    try:
        PackedTokens(directory)  # another process was quicker
    except DataError:
        shutil.rmtree(directory, ignore_errors=True)
        os.replace(folder, directory)
