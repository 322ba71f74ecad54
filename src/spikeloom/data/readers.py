"""Read one local file as a stream of document texts.

A file is decompressed, checked and parsed piece by piece, so that memory follows the longest
document and not the file. Whatever is wrong with a file is a one-line `DataError` that names it.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from spikeloom.errors import DataError, MissingExtraError, did_you_mean

TEXT_SUFFIXES = (".txt", ".md")
RECORD_SUFFIXES = (".jsonl", ".parquet")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
KNOWN = f"{', '.join(TEXT_SUFFIXES + RECORD_SUFFIXES)}, each also with {', '.join(COMPRESSIONS)}"

_CHUNK = 1 << 20  # bytes read from a file at a time
_OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """A text, and what its record says about it.

    Attributes:
        text: the text.
        about: the other columns of its record, such as `title` or `category`; of a plain file its
            name without suffixes, as `title`.
    """

    text: str
    about: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path, column: str | None = None) -> Iterator[str]:
    """Texts of a file, see `read_documents`."""
    return (document.text for document in read_documents(path, column))


def read_documents(path: Path, column: str | None = None) -> Iterator[Document]:
    """The whole of a `.txt` or `.md`, or a document a record of a `.jsonl` or `.parquet`.

    Args:
        path: a file with one of the suffixes in `KNOWN`.
        column: the key or column that holds the text; `text` if None. Only for records.

    Raises:
        DataError: the file cannot be read, decompressed, decoded or parsed.
        MissingExtraError: pyarrow or zstandard is needed and absent.
    """
    kind = content_suffix(path)
    if kind is None:
        raise DataError(f"{path}: unknown kind of file: give {KNOWN}")
    if kind in TEXT_SUFFIXES:
        if column is not None:
            raise DataError(f"{path} is plain text and has no columns: leave out '::{column}'")
        return _read_text(path)
    return (_read_jsonl if kind == ".jsonl" else _read_parquet)(path, column or "text")


def read_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, all of it) for each record of a `.jsonl` or `.parquet` file.

    Raises:
        DataError, MissingExtraError: as `read` does.
    """
    kind = content_suffix(path)
    if kind not in RECORD_SUFFIXES:
        raise DataError(f"{path} holds no records: give {' or '.join(RECORD_SUFFIXES)}")
    return _jsonl_objects(path) if kind == ".jsonl" else _parquet_objects(path)


def read_lines(path: Path) -> list[str]:
    """Lines of a list that somebody wrote; empty ones and those that begin with # are left out.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or holds no such line.
    """
    raw = b"".join(_without_nul(path, chunks(path)))
    lines = [line.strip() for line in _decode(raw, str(path)).splitlines()]
    lines = [line for line in lines if line and line[0] != "#"]
    if not lines:
        raise DataError(f"{path} holds nothing: write one item a line")
    return lines


def content_suffix(path: Path) -> str | None:
    """The suffix under a compression (`.jsonl` of `a.jsonl.xz`), or None if it is unknown."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    known = suffixes and suffixes[-1] in TEXT_SUFFIXES + RECORD_SUFFIXES
    return suffixes[-1] if known else None


def without_surrogates(text: str) -> str:
    """`text` with every lone surrogate, which UTF-8 cannot hold, replaced by U+FFFD."""
    return _LONE_SURROGATE.sub("\ufffd", text)


def _read_text(path: Path) -> Iterator[Document]:
    raw = b"".join(_without_nul(path, chunks(path)))
    yield Document(
        _decode(raw, str(path)).replace("\r\n", "\n"), {"title": path.name.partition(".")[0]}
    )


def _read_jsonl(path: Path, column: str) -> Iterator[Document]:
    for place, record in _jsonl_objects(path):
        if text := _text_in(record, column, path, place):
            yield _document(record, column, text)


def _jsonl_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_lines(_without_nul(path, chunks(path))), start=1):
        place = f"{path}, line {number}"
        if line.strip():
            record = _parse(_decode(line, place), place)
            # Only an escape can bring a surrogate past the UTF-8 decoder.
            yield place, _clean(record) if b"\\u" in line else record


def _clean(tree: Any) -> Any:
    """A tree of JSON without lone surrogates."""
    if isinstance(tree, str):
        return without_surrogates(tree)
    if isinstance(tree, list):
        return [_clean(value) for value in tree]
    if isinstance(tree, dict):
        return {_clean(key): _clean(value) for key, value in tree.items()}
    return tree


def _read_parquet(path: Path, column: str) -> Iterator[Document]:
    with _open_parquet(path) as file:
        names = file.schema_arrow.names
        if column not in names:
            raise DataError(_no_column(str(path), column, names, path))
        for batch in file.iter_batches(batch_size=256):
            for record in batch.to_pylist():
                if text := _text_in(record, column, path, str(path)):
                    yield _document(record, column, text)


def _parquet_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with _open_parquet(path) as file:
        rows = (row for b in file.iter_batches(batch_size=256) for row in b.to_pylist())
        for number, row in enumerate(rows, start=1):
            yield f"{path}, row {number}", row


@contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet") from None
    packed = path.suffix.lower() in COMPRESSIONS
    try:
        with pq.ParquetFile(BytesIO(b"".join(chunks(path))) if packed else path) as file:
            yield file
    except (pa.ArrowException, OSError) as exc:
        raise DataError(f"{path} is not a readable parquet file ({_first_line(exc)})") from exc


def _document(record: dict[str, Any], column: str, text: str) -> Document:
    return Document(text, {name: value for name, value in record.items() if name != column})


def _parse(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{place}: not valid JSON ({exc}): want one object a line") from exc
    if not isinstance(record, dict):
        raise DataError(f"{place}: a {type(record).__name__}, not an object like {{'text': …}}")
    return record


def _text_in(record: dict[str, Any], column: str, path: Path, place: str) -> str:
    """The text of a record; a null counts as an empty text."""
    if column not in record:
        raise DataError(_no_column(place, column, list(record), path))
    text = record[column]
    if text is not None and not isinstance(text, str):
        raise DataError(f"{place}: column '{column}' is a {type(text).__name__}, not text")
    return text or ""


def _no_column(place: str, column: str, names: list[str], path: Path) -> str:
    has = ", ".join(f"'{name}'" for name in names) or "none"
    hint = did_you_mean(column, names)
    if "messages" in names:
        return f"{place}: these are conversations: train with --set training.chat=true"
    return f"{place}: no column '{column}'{hint}; it has {has}: choose one as {path}::COLUMN"


def _decode(raw: bytes, place: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        what = f"byte {exc.start} (0x{raw[exc.start]:02x}) is not UTF-8"
        raise DataError(f"{place}: {what}: save the file as UTF-8") from exc


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their line feeds; the last one may be empty."""
    pending: list[bytes] = []
    for chunk in chunks:
        *complete, rest = chunk.split(b"\n")
        if complete:
            complete[0] = b"".join([*pending, complete[0]])
            pending = []
            yield from complete
        pending.append(rest)
    yield b"".join(pending)


def _without_nul(path: Path, chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if b"\0" in chunk:
            raise DataError(f"{path} holds NUL bytes, so it is binary or UTF-16: give UTF-8 text")
        yield chunk


def chunks(path: Path) -> Iterator[bytes]:
    """The decompressed bytes of a file, a mebibyte at a time.

    Raises:
        DataError: the file cannot be read, or is cut short.
    """
    suffix = path.suffix.lower()
    try:
        with _OPENERS.get(suffix, open)(path, "rb") as file:
            yield from _zstd(file) if suffix == ".zst" else _blocks(file)
    except EOFError as exc:
        raise DataError(f"{path} is cut short: copy or download it again") from exc
    except (zlib.error, lzma.LZMAError, gzip.BadGzipFile) as exc:
        raise DataError(f"{path} is not a valid {suffix} file ({_first_line(exc)})") from exc
    except OSError as exc:
        if exc.errno is None:  # bz2's way to say it
            raise DataError(f"{path} is not a valid {suffix} file ({_first_line(exc)})") from exc
        raise DataError(f"{path} cannot be read: {exc.strerror}") from exc


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_CHUNK):
        yield block


def _zstd(file: IO[bytes]) -> Iterator[bytes]:
    """Frame by frame, because only a single frame tells whether its end was reached."""
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError("zstandard", "zstd") from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = decompressor.decompressobj()
    try:
        while block := file.read(_CHUNK >> 4):
            while block:
                if frame.eof:
                    frame = decompressor.decompressobj()
                yield frame.decompress(block)
                block = frame.unused_data
    except zstandard.ZstdError as exc:
        raise lzma.LZMAError(str(exc)) from exc
    if not frame.eof:
        raise EOFError


def _first_line(exc: Exception) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0]
