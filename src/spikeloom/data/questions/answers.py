"""What was answered so far, kept beside the output: a second run pays for nothing twice.

OUT.answers.jsonl   pairs of each section as they came, with the tokens used
OUT.batches.jsonl   batches that were handed in, and those that were read
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from spikeloom.data.resume import GrowingJsonl


@dataclass(frozen=True)
class Answered:
    """Unchecked pairs of one section, and what they cost."""

    key: str
    pairs: list[tuple[str, str]]
    input_tokens: int
    output_tokens: int


class Answers:
    """The answers of one output, by key."""

    @staticmethod
    def path(out: Path) -> Path:
        return out.with_name(out.name + ".answers.jsonl")

    def __init__(self, out: Path, open_files: ExitStack) -> None:
        self._log = open_files.enter_context(GrowingJsonl(self.path(out), "key"))
        self._known = {record["key"]: Answered(**record) for record in self._log.records()}

    def __contains__(self, key: object) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Answered:
        return self._known[key]

    def add(self, answered: Answered) -> None:
        if answered.key not in self._known:
            self._log.append(asdict(answered))
            self._known[answered.key] = answered


class Batches:
    """The batches of one output."""

    def __init__(self, out: Path, open_files: ExitStack) -> None:
        path = out.with_name(out.name + ".batches.jsonl")
        self._log = open_files.enter_context(GrowingJsonl(path, "event"))

    @staticmethod
    def name(key: str) -> str:
        """A key as the service takes it: letters and digits, 64 at most."""
        return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()

    def sent(self, batch: str, keys: dict[str, str]) -> None:
        """Note a batch, with the key of each request by its name."""
        self._log.append({"event": f"sent {batch}", "batch": batch, "keys": keys})

    def read(self, batch: str) -> None:
        """Note that all answers of a batch are here."""
        self._log.append({"event": f"read {batch}", "batch": batch, "keys": {}})

    def waiting(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Batches that were sent and not read, with their keys."""
        for record in list(self._log.records()):
            if record["event"].startswith("sent ") and f"read {record['batch']}" not in self._log:
                yield record["batch"], record["keys"]
