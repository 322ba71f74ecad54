"""Tokenise a source once, keep it as a memory-mapped stream, and cut the stream into rows.

A stream is `<|endoftext|>`, the tokens of a document, `<|endoftext|>`, the next document, and so
on. It lives in a directory of the cache (`$SPIKELOOM_CACHE`, else `~/.cache/spikeloom`):

    tokens.bin           the ids, uint16 if the vocabulary fits and uint32 otherwise, no header
    documents.npy        int64 [documents], where each document starts in the stream
    document_bytes.npy   int64 [documents], UTF-8 bytes of each document's text
    manifest.json        where it came from, and the counts that show that it is whole
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import FileSizeColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from spikeloom import tokenizers
from spikeloom.data import sources
from spikeloom.data.encoding import encode_documents
from spikeloom.data.split import split_documents
from spikeloom.errors import ConfigError, DataError

Part = Literal["all", "train", "eval"]

_VERSION = 1  # raise it when the same text would be packed differently


class PackedTokens:
    """A read-only stream of token ids on disk. Pickles as its path.

    Args:
        directory: a cache entry that `pack` wrote.

    Attributes:
        tokens: ids, [tokens], memory-mapped.
        documents: int64 [documents], offset of the `<|endoftext|>` before each document.
        document_bytes: int64 [documents], UTF-8 bytes of each document's text.
        manifest: `source`, `part`, `tokens`, `documents`, `bytes`, `dtype`, `vocab_size`, …

    Raises:
        DataError: a file is missing, or its size contradicts the manifest.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        try:
            manifest = json.loads((self.directory / "manifest.json").read_text("utf-8"))
            path = self.directory / "tokens.bin"
            self.tokens: NDArray[Any] = np.memmap(path, dtype=manifest["dtype"], mode="r")
            self.documents: NDArray[np.int64] = np.load(self.directory / "documents.npy")
            self.document_bytes: NDArray[np.int64] = np.load(self.directory / "document_bytes.npy")
            self.manifest: dict[str, Any] = manifest
            whole = self._counts() == {name: manifest[name] for name in self._counts()}
        except (OSError, ValueError, KeyError, TypeError, EOFError) as exc:
            raise DataError(f"{self.directory} is not a whole token cache ({exc})") from exc
        if not whole:
            raise DataError(f"{self.directory} is not a whole token cache (counts differ)")

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    @property
    def total_bytes(self) -> int:
        """UTF-8 bytes of all text, which bits per byte are counted on."""
        return int(self.document_bytes.sum())

    def _counts(self) -> dict[str, int]:
        counts = {"tokens": len(self.tokens), "documents": len(self.documents)}
        return counts | {"bytes": self.total_bytes}

    def __reduce__(self) -> tuple[type[PackedTokens], tuple[Path]]:
        return PackedTokens, (self.directory,)


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
        ids = torch.from_numpy(self.packed.tokens[start : start + self.context].astype(np.int64))
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
    eval_share: float = 0.05,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> PackedTokens:
    """The tokens of a source, from the cache if they were packed before.

    Args:
        source: see `spikeloom.data.sources`.
        tokenizer: its `bos_token`, or else its `eos_token`, opens every document.
        part: `train` and `eval` are the two sides of `split_documents`.
        eval_share: share of documents held out; without meaning for `all`.
        cache_dir: in place of `$SPIKELOOM_CACHE`.
        progress: show a bar, if stderr is a terminal.

    Raises:
        ConfigError: impossible `part` or `eval_share`, or a tokenizer with neither bos nor eos.
        DataError: the source cannot be read, or the cache cannot be written.
    """
    _check(tokenizer, part, eval_share)
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
    texts: Iterable[str] = sources.documents(source)
    if part != "all":
        texts = split_documents(texts, part, eval_share)
    with _new_entry(directory) as folder, _bar(progress, part) as bar:
        _write(folder, texts, tokenizer, about, bar)
    return PackedTokens(directory)


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """`cache_dir`, else `$SPIKELOOM_CACHE`, else `~/.cache/spikeloom`."""
    chosen = cache_dir or os.environ.get("SPIKELOOM_CACHE") or "~/.cache/spikeloom"
    return Path(chosen).expanduser()


def _check(tokenizer: PreTrainedTokenizerFast, part: str, eval_share: float) -> None:
    if part not in ("all", "train", "eval"):
        raise ConfigError(f"part '{part}' is unknown: use all, train or eval")
    if not 0 < eval_share < 1:
        raise ConfigError(f"eval_share must lie between 0 and 1, not {eval_share}")
    if _opening(tokenizer) is None:
        raise ConfigError("the tokenizer has neither bos_token nor eos_token: set one of them")


def _opening(tokenizer: PreTrainedTokenizerFast) -> int | None:
    bos = tokenizer.bos_token_id
    return tokenizer.eos_token_id if bos is None else bos


def _key(about: dict[str, Any]) -> str:
    # The fingerprint stands for the source: "a" and "./a" are the same files.
    decides = {name: value for name, value in about.items() if name != "source"}
    return hashlib.blake2b(json.dumps(decides).encode(), digest_size=16).hexdigest()


def _write(
    folder: Path,
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerFast,
    about: dict[str, Any],
    bar: Progress,
) -> None:
    vocab_size = max(tokenizer.get_vocab().values()) + 1
    dtype = np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    opening = np.asarray([_opening(tokenizer)], dtype)
    starts, byte_counts, tokens = array("q"), array("q"), 0
    with (folder / "tokens.bin").open("wb") as file:
        for piece in encode_documents(texts, tokenizer):
            if piece.opens_document:
                starts.append(tokens)
                byte_counts.append(0)
                file.write(opening.tobytes())
                tokens += 1
            file.write(piece.ids.astype(dtype).tobytes())
            tokens += len(piece.ids)
            byte_counts[-1] += piece.text_bytes
            bar.advance(bar.task_ids[0], piece.text_bytes)
    if not starts:
        raise DataError(f"{about['source']} has no documents for part '{about['part']}'")
    np.save(folder / "documents.npy", np.asarray(starts, np.int64))
    np.save(folder / "document_bytes.npy", np.asarray(byte_counts, np.int64))
    counts = {"tokens": tokens, "documents": len(starts), "bytes": sum(byte_counts)}
    kind = {"dtype": dtype.name, "vocab_size": vocab_size, "date": datetime.now(UTC).isoformat()}
    (folder / "manifest.json").write_text(json.dumps(about | counts | kind, indent=2), "utf-8")


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


@contextmanager
def _bar(progress: bool, part: str) -> Iterator[Progress]:
    """One task that counts bytes of text; the total is not known beforehand."""
    label = "tokenising" if part == "all" else f"tokenising {part}"
    columns = (TextColumn(label), FileSizeColumn(), TimeElapsedColumn())
    quiet = not (progress and sys.stderr.isatty())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        bar.add_task(label, total=None)
        yield bar
