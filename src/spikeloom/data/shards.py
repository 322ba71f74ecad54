"""Token streams on disk: written shard by shard, read through memory maps.

A stream is `<|endoftext|>`, the tokens of a document, `<|endoftext|>`, the next document, and so
on. It lies in a folder, cut into shards at the start of a document:

    tokens-00000.bin            the ids, uint16 if the vocabulary fits, else uint32; no header
    documents-00000.npy         int64 [documents], where each document starts in the shard
    document_bytes-00000.npy    int64 [documents], UTF-8 bytes of each document's text
    about-00000.jsonl           one object a document: what is known of `ABOUT`
    stream.json                 dtype, counts of all and of each shard; written last
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from spikeloom.data.encoding import EncodedPiece
from spikeloom.data.manifest import write_whole
from spikeloom.errors import DataError

ABOUT = ("id", "title", "category", "source", "licence")
"""What a shard keeps of a document's record."""

STREAM_FILE = "stream.json"
UNNAMED = "unnamed"  # the source of documents whose record names none

_ARRAYS = ("documents", "document_bytes")


class PackedTokens:
    """A read-only stream of token ids on disk. Pickles as its paths.

    Args:
        directories: folders that `StreamWriter` finished, read one after the other.

    Attributes:
        tokens: ids, [tokens], memory-mapped; an array, or a `Spliced` one of several shards.
        documents: int64 [documents], offset of the `<|endoftext|>` before each document.
        document_bytes: int64 [documents], UTF-8 bytes of each document's text.
        manifest: `stream.json` of the first folder: `tokens`, `documents`, `bytes`, `dtype`, …

    Raises:
        DataError: a file is missing, or its size contradicts `stream.json`.
    """

    def __init__(self, *directories: str | Path) -> None:
        self.directories = tuple(Path(directory) for directory in directories)
        shards = [shard for directory in self.directories for shard in _shards(directory)]
        starts = [0, *accumulate(len(shard.tokens) for shard in shards)]
        self.tokens: Any = splice([shard.tokens for shard in shards])
        self.documents = np.concatenate(
            [shard.documents + start for shard, start in zip(shards, starts, strict=False)]
        )
        self.document_bytes = np.concatenate([shard.document_bytes for shard in shards])
        self.manifest: dict[str, Any] = read_stream(self.directories[0])

    @property
    def directory(self) -> Path:
        """The first folder."""
        return self.directories[0]

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    @property
    def total_bytes(self) -> int:
        """UTF-8 bytes of all text, which bits per byte are counted on."""
        return int(self.document_bytes.sum())

    def about(self) -> Iterator[dict[str, Any]]:
        """What is known of each document, in order."""
        for directory in self.directories:
            for index in range(len(read_stream(directory)["shards"])):
                with (directory / f"about-{index:05}.jsonl").open(encoding="utf-8") as file:
                    yield from map(json.loads, file)

    def __reduce__(self) -> tuple[type[PackedTokens], tuple[Path, ...]]:
        return PackedTokens, self.directories


class Spliced:
    """Several arrays as if they were one; a slice within one of them is a view, not a copy.

    A slice over a seam is another `Spliced`, which becomes an array where NumPy needs one.
    """

    def __init__(self, parts: list[NDArray[Any]]) -> None:
        self.parts = parts
        self.dtype = parts[0].dtype
        self._starts = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, key: slice) -> Any:
        start, stop, step = key.indices(len(self))
        if step != 1:
            raise ValueError("tokens are read in order")
        cuts = zip(self.parts, self._starts, strict=False)
        kept = [part[max(start - at, 0) : max(stop - at, 0)] for part, at in cuts]
        return splice([part for part in kept if len(part)] or [self.parts[0][:0]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.concatenate(self.parts, dtype=dtype)


def splice(parts: list[NDArray[Any]]) -> Any:
    """One array as it is, several as `Spliced`."""
    return parts[0] if len(parts) == 1 else Spliced(parts)


class StreamWriter:
    """Writes a stream into a folder, shard by shard.

    Args:
        folder: where to; made if need be.
        vocab_size: one more than the largest id.
        opening: id that stands before every document.
        shards: counts of the shards that an earlier sitting finished.

    Attributes:
        tokens: in the shard that is open.
        shards: counts of the finished ones.
    """

    def __init__(
        self,
        folder: Path,
        vocab_size: int,
        opening: int,
        shards: list[dict[str, Any]] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.vocab_size = vocab_size
        self.dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
        self.shards = list(shards or [])
        self._opening = np.asarray([opening], self.dtype)
        self._file: IO[bytes] | None = None
        self._begin()

    def open_document(self, about: Mapping[str, Any]) -> None:
        """Start a document; its pieces follow."""
        self._starts.append(self.tokens)
        self._bytes.append(0)
        self._about.append({name: about[name] for name in ABOUT if about.get(name) is not None})
        self._write(self._opening)

    def add(self, piece: EncodedPiece) -> None:
        """Append a piece of the document that is open."""
        self._write(piece.ids.astype(self.dtype))
        self._bytes[-1] += piece.text_bytes

    @property
    def documents(self) -> int:
        """Documents in the shard that is open."""
        return len(self._starts)

    def close_shard(self) -> None:
        """Finish the shard, if it has documents; the next document opens another."""
        if self._file is None:
            return
        self._file.close()
        for name, values in (("documents", self._starts), ("document_bytes", self._bytes)):
            np.save(self._path(name, "npy"), np.asarray(values, np.int64))
        lines = (json.dumps(about, ensure_ascii=False) + "\n" for about in self._about)
        self._path("about", "jsonl").write_text("".join(lines), encoding="utf-8")
        self.shards.append(self._counts())
        self._begin()

    def close(self) -> None:
        """Let go of the files; the shard that is open is lost."""
        if self._file is not None:
            self._file.close()

    def finish(self, **facts: Any) -> None:
        """Write `stream.json`, with these facts in it, which makes the stream whole."""
        self.close_shard()
        totals = {
            name: sum(shard[name] for shard in self.shards)
            for name in ("tokens", "documents", "bytes")
        }
        kind = {"dtype": self.dtype.name, "vocab_size": self.vocab_size}
        stream = facts | totals | kind | {"shards": self.shards}
        write_whole(self.folder / STREAM_FILE, json.dumps(stream, indent=2) + "\n")

    def _begin(self) -> None:
        self._file = None
        self._digest = hashlib.sha256()
        self._starts, self._bytes = array("q"), array("q")
        self._about: list[dict[str, Any]] = []
        self.tokens = 0

    def _write(self, ids: NDArray[Any]) -> None:
        if self._file is None:
            self._file = self._path("tokens", "bin").open("wb")
        raw = ids.tobytes()
        self._file.write(raw)
        self._digest.update(raw)
        self.tokens += len(ids)

    def _counts(self) -> dict[str, Any]:
        counts = {"tokens": self.tokens, "documents": len(self._starts), "bytes": sum(self._bytes)}
        return counts | {"sha256": self._digest.hexdigest(), "sources": self._per_source()}

    def _per_source(self) -> dict[str, dict[str, int]]:
        """Documents, bytes and tokens (openings included) of each source in the shard."""
        sources: dict[str, dict[str, int]] = {}
        ends = [*self._starts[1:], self.tokens]
        for about, size, start, end in zip(
            self._about, self._bytes, self._starts, ends, strict=True
        ):
            name = str(about.get("source", UNNAMED))
            counts = sources.setdefault(name, {"documents": 0, "bytes": 0, "tokens": 0})
            counts["documents"] += 1
            counts["bytes"] += size
            counts["tokens"] += end - start
        return sources

    def _path(self, name: str, suffix: str) -> Path:
        return self.folder / f"{name}-{len(self.shards):05}.{suffix}"


class _Shard:
    """One shard, checked against what `stream.json` says of it."""

    def __init__(self, directory: Path, index: int, dtype: str, counts: dict[str, Any]) -> None:
        self.tokens = np.memmap(directory / f"tokens-{index:05}.bin", dtype=dtype, mode="r")
        self.documents, self.document_bytes = (
            np.load(directory / f"{name}-{index:05}.npy") for name in _ARRAYS
        )
        found = (len(self.tokens), len(self.documents), int(self.document_bytes.sum()))
        if found != (counts["tokens"], counts["documents"], counts["bytes"]):
            raise ValueError(f"counts differ in shard {index}")


def read_stream(directory: Path) -> dict[str, Any]:
    """What `stream.json` says.

    Raises:
        DataError: it is missing or broken.
    """
    try:
        stream: dict[str, Any] = json.loads((directory / STREAM_FILE).read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise DataError(f"{directory} is not a whole token stream ({exc})") from exc
    return stream


def _shards(directory: Path) -> list[_Shard]:
    stream = read_stream(directory)
    try:
        return [
            _Shard(directory, index, stream["dtype"], counts)
            for index, counts in enumerate(stream["shards"])
        ]
    except (OSError, ValueError, KeyError, TypeError, EOFError) as exc:
        raise DataError(f"{directory} is not a whole token stream ({exc})") from exc
