"""What a user may name as text, and the documents in it.

A source is one of these, or several joined with commas:

    notes.txt, notes.md            one document a file
    stories.jsonl, books.parquet   one document a record, in the column `text`
    stories.jsonl::body            … in the column `body`
    corpus/, 'corpus/*.jsonl.xz'   every such file of a folder (recursively) or a glob, sorted
    python-docs                    Python's own documentation; needs no file and no network
    hub:OWNER/NAME[:split][:column]          a data set of the hub, streamed
    hub:OWNER/NAME/CONFIG[:split][:column]   … one of its configurations

Files may end in `.gz`, `.bz2`, `.xz` or `.zst` as well.
"""

from __future__ import annotations

import glob
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spikeloom.data.python_docs import python_docs
from spikeloom.data.readers import (
    KNOWN,
    Document,
    content_suffix,
    read_documents,
    read_objects,
    without_surrogates,
)
from spikeloom.errors import DataError, MissingExtraError, did_you_mean

PYTHON_DOCS = "python-docs"
_HUB = "hub:"


def documents(source: str) -> Iterator[str]:
    """The texts of a source, see `records`."""
    return (document.text for document in records(source))


def records(source: str) -> Iterator[Document]:
    """Every document of a source that is more than white space, read as it is asked for.

    Args:
        source: see the top of this module.

    Raises:
        DataError: a part is missing, broken, of an unknown kind, or holds no text.
        MissingExtraError: a part needs a package that is not installed.
    """
    for part in _parts(source):
        empty = True
        for document in _documents_of(part):
            if document.text and not document.text.isspace():
                empty = False
                yield document
        if empty:
            raise DataError(f"{part} holds no text: it is empty, or nothing but white space")


def objects(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, all of it) for each record of a source of records: files and the hub.

    Raises:
        DataError: a part is missing, broken, or holds no records.
        MissingExtraError: a part needs a package that is not installed.
    """
    for part in _parts(source):
        if part.startswith(_HUB):
            yield from ((part, record) for record in _hub(part))
        else:
            for path in _files(part):
                yield from read_objects(path)


def fingerprint(source: str) -> str:
    """Hex digest that changes when the text of a source may have changed.

    It looks at paths, sizes and times of change, not at the contents, so it is quick. A hub data
    set counts as unchanged as long as its name is; `python-docs` as long as the interpreter is.

    Raises:
        DataError: a file of the source is missing.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(source):
        for fact in _facts(part):
            digest.update(f"{fact}\n".encode())
    return digest.hexdigest()


def files(source: str) -> list[Path]:
    """The local files that a source reads, in order.

    Raises:
        DataError: a file of the source is missing.
    """
    local = [part for part in _parts(source) if part != PYTHON_DOCS and not part.startswith(_HUB)]
    return [path for part in local for path in _files(_path_and_column(part)[0])]


def _parts(source: str) -> list[str]:
    if Path(source).exists():  # a path may hold a comma itself
        return [source]
    parts = [part.strip() for part in source.split(",") if part.strip()]
    if not parts:
        raise DataError(f"no source named: give a file, a folder, hub:NAME or {PYTHON_DOCS}")
    return parts


def _documents_of(part: str) -> Iterator[Document]:
    if part == PYTHON_DOCS:
        yield from map(Document, python_docs())
    elif part.startswith(_HUB):
        yield from _hub_documents(part)
    else:
        pattern, column = _path_and_column(part)
        for path in _files(pattern):
            yield from read_documents(path, column)


def _facts(part: str) -> Iterator[str]:
    if part == PYTHON_DOCS:
        yield f"{PYTHON_DOCS} {sys.version}"
    elif part.startswith(_HUB):
        yield part
    else:
        pattern, column = _path_and_column(part)
        for path in _files(pattern):
            stat = path.stat()
            yield f"{path.resolve()} {column} {stat.st_size} {stat.st_mtime_ns}"


def _path_and_column(part: str) -> tuple[str, str | None]:
    pattern, separator, column = part.rpartition("::")
    return (pattern, column) if separator else (part, None)


def _files(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [file for file in path.rglob("*") if not _hidden(file.relative_to(path))]
    elif glob.has_magic(pattern):
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
    else:
        raise DataError(_missing(path))
    files = sorted(file for file in found if content_suffix(file) and file.is_file())
    if not files:
        raise DataError(f"{pattern}: no file here is of a known kind: {KNOWN}")
    return files


def _hidden(path: Path) -> bool:
    return any(name.startswith(".") for name in path.parts)


def _missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"{path} does not exist: there is no folder {folder}"
    near = did_you_mean(path.name, [file.name for file in folder.iterdir()] + [PYTHON_DOCS])
    return f"{path} does not exist{near}"


def _hub_documents(part: str) -> Iterator[Document]:
    column = _hub_address(part)[-1]
    for record in _hub(part):
        if column not in record:
            has = ", ".join(f"'{key}'" for key in record)
            raise DataError(f"{part}: no column '{column}'; it has {has}")
        text = without_surrogates(str(record[column] or ""))
        yield Document(text, {name: value for name, value in record.items() if name != column})


def _hub(part: str) -> Iterator[dict[str, Any]]:
    name, config, split, _ = _hub_address(part)
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "hub") from None
    from huggingface_hub import HfApi

    try:
        # One question first: where there is no network, `datasets` retries for half a minute.
        HfApi().dataset_info(name, timeout=10)
        stream: Any = datasets.load_dataset(name, config, split=split, streaming=True)
        yield from stream
    except Exception as exc:  # the hub's client raises its own errors, httpx's and ValueError
        raise DataError(_hub_failure(part, exc)) from exc


def _hub_address(part: str) -> tuple[str, str | None, str, str]:
    """`hub:OWNER/NAME/CONFIG:split:column` -> (`OWNER/NAME`, `CONFIG`, split, column)."""
    address, *rest = part.removeprefix(_HUB).split(":")
    owner_name, config = address, None
    if address.count("/") == 2:
        owner_name, _, config = address.rpartition("/")
    if not owner_name or len(rest) > 2:
        raise DataError(f"{part}: write hub:OWNER/NAME[:split][:column]")
    split, column = [*rest, "", ""][:2]
    return owner_name, config, split or "train", column or "text"


def _hub_failure(part: str, exc: Exception) -> str:
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import RepositoryNotFoundError

    if isinstance(exc, DatasetNotFoundError | RepositoryNotFoundError):
        return f"{part}: the hub has no such data set, or it asks for a login"
    # The client's own network errors come from whichever HTTP library it was built on.
    if isinstance(exc, OSError) or type(exc).__module__.startswith("httpx"):
        return f"{part}: the hub cannot be reached; local files and '{PYTHON_DOCS}' need no network"
    return f"{part}: {(str(exc).splitlines() or [type(exc).__name__])[0]}"
