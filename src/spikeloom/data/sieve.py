"""Leave out records that a small model cannot learn from: long questions, unknown characters.

A record with `<unk>` in it has lost a word somewhere on its way; with a tokenizer at hand, so has
one with characters that its vocabulary lacks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spikeloom.data.records import (
    Instruction,
    Preference,
    Problem,
    Question,
    Record,
)

_UNKNOWN = re.compile(r"<\|?unk\|?>|\[unk\]", re.IGNORECASE)


def sieve(
    records: Iterable[Record],
    dropped: Counter[str],
    max_question_words: int | None = None,
    tokenizer: Path | None = None,
) -> Iterator[Record]:
    """The records worth keeping.

    Args:
        records: read once.
        dropped: counts what was left out, by reason.
        max_question_words: longest question (instruction and input, last message of the user).
        tokenizer: a directory; drops texts that it cannot write without its unknown token.
    """
    is_unknown = _unknown_in(tokenizer)
    for record in records:
        if any(is_unknown(text) for text in texts(record)):
            dropped["unknown token"] += 1
        elif max_question_words is not None and len(asked(record).split()) > max_question_words:
            dropped["long question"] += 1
        else:
            yield record


def asked(record: Record) -> str:
    """What a record asks; nothing for a tagged text."""
    match record:
        case Question() | Problem():
            return record.question
        case Instruction():
            return f"{record.instruction} {record.input}"
        case Preference():
            return record.prompt[-1].content
    return ""


def texts(record: Record) -> list[str]:
    """Every string of a record."""
    return list(_strings(asdict(record)))


def _strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _strings(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _strings(value)


def _unknown_in(directory: Path | None) -> Callable[[str], bool]:
    """Whether a text holds the mark of an unknown token, or would get one."""
    if directory is None:
        return lambda text: bool(_UNKNOWN.search(text))
    from spikeloom.tokenizers import literal, load

    tokenizer = load(directory)
    backend, unknown = literal(tokenizer), tokenizer.unk_token_id
    if unknown is None:  # it can write anything
        return lambda text: bool(_UNKNOWN.search(text))
    return lambda text: bool(_UNKNOWN.search(text)) or unknown in backend.encode(text).ids
