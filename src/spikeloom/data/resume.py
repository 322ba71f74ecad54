"""A JSONL file that grows record by record, so that a stopped run goes on where it was.

The output is its own memory: what is in the file is done. A process that is killed can leave half
a line at the end; it is mended when the file is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spikeloom.data.closing import Closing
from spikeloom.errors import DataError


class GrowingJsonl(Closing):
    """Records appended to a file, each whole on the disk before the next; keys are remembered.

    with GrowingJsonl(path, key="pageid") as output:
        if pageid not in output:
            output.append({"pageid": pageid, "text": text})

    Args:
        path: the file; made, with its folder, if it is not there.
        key: the field that tells records apart.

    Raises:
        DataError: the file holds something else than records with that field.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        path.parent.mkdir(parents=True, exist_ok=True)
        _mend_end(path)
        self._known = {record[key] for record in self.records()}
        self._file = path.open("a", encoding="utf-8")

    def __contains__(self, key: object) -> bool:
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)

    def append(self, record: dict[str, Any]) -> None:
        """Add a record whose key is not there yet; one that is there is a mistake of the caller."""
        if record[self.key] in self._known:
            raise ValueError(f"{self.path} already has {self.key} {record[self.key]!r}")
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()
        self._known.add(record[self.key])

    def records(self) -> Iterator[dict[str, Any]]:
        """Every record in the file, in the order of writing."""
        with self.path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield _record(line, self.key, f"{self.path}, line {number}")

    def close(self) -> None:
        self._file.close()


def _record(line: str, key: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as exc:
        raise DataError(f"{place}: not valid JSON ({exc}); give another --out") from exc
    if not isinstance(record, dict) or key not in record:
        raise DataError(f"{place}: not a record with '{key}' as this verb writes: another --out?")
    return record


def _mend_end(path: Path) -> None:
    """Cut off a torn last line; close a whole one that lacks its line feed."""
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        tail = _after_last_line_feed(file, size)
        if not tail:
            return
        try:
            json.loads(tail)
        except ValueError:
            file.truncate(size - len(tail))
        else:
            file.write(b"\n")


def _after_last_line_feed(file: Any, size: int) -> bytes:
    step, tail = 1 << 16, b""
    while len(tail) < size:
        start = max(size - len(tail) - step, 0)
        file.seek(start)
        tail = file.read(size - len(tail) - start) + tail
        if b"\n" in tail:
            return tail.rpartition(b"\n")[2]
    return tail
