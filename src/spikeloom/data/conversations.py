"""Conversations as rows to train on, with a loss on nothing but what the assistant says.

A record is `{"messages": [{"role", "content"}, …]}`, the form that TRL reads, or `{"text"}`: plain
text, all of which is learned, so that a model that is tuned keeps what it could. Turns are spelt as
in the chat template (`spikeloom.tokenizers.special`) and in `spikeloom chat`:

    <|endoftext|><|user|>Tell me a story.<|end|><|assistant|>Once upon a time …<|end|>
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from spikeloom import tokenizers
from spikeloom.data.conditioning import NO_LOSS
from spikeloom.data.encoding import encoder
from spikeloom.data.readers import Document
from spikeloom.data.sources import objects
from spikeloom.data.split import sides
from spikeloom.errors import DataError
from spikeloom.tokenizers.special import ASSISTANT, END, USER

ROLES = ("system", "user", "assistant")
_TURN = ("role", "content")
_OPEN_ROWS = 64  # that a record is tried to fit in

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Example:
    """A record in tokens.

    Attributes:
        ids: `[n]`, from `<|endoftext|>` on.
        labels: `[n]`, `NO_LOSS` where nothing is to be learned.
        bytes: UTF-8 bytes of what is learned.
    """

    ids: Ids
    labels: Ids
    bytes: int


class Speller:
    """Records to examples; nothing in a text is taken for a special token.

    Raises:
        DataError: the tokenizer has no role tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in (USER, END, ASSISTANT) if token not in vocabulary]
        if missing:
            raise DataError(f"the tokenizer has no {missing[0]}: conversations need role tokens")
        self._user, self._end, self._assistant = (vocabulary[t] for t in (USER, END, ASSISTANT))
        self._opening = tokenizer.bos_token_id
        self._encoder = encoder(tokenizers.literal(tokenizer))

    def __call__(self, record: Mapping[str, Any], place: str) -> Example:
        """The example of a record.

        Raises:
            DataError: it has neither `messages` nor `text`, or no answer to learn.
        """
        ids, learned, size = [self._opening], [True], 0
        for said, wanted, text in self._turns(record, place):
            ids += said
            learned += [wanted] * len(said)
            size += len(text.encode()) * wanted
        if not size:
            raise DataError(f"{place}: nothing in it is the assistant's, or text: nothing to learn")
        known = np.asarray(ids, np.int64)
        return Example(known, np.where(learned, known, NO_LOSS), size)

    def _turns(
        self, record: Mapping[str, Any], place: str
    ) -> Iterator[tuple[list[int], bool, str]]:
        """Token ids, whether they are learned, and the text in them."""
        if "messages" not in record:
            text = _text(record, place)
            yield self._encode(text), True, text
            return
        system = ""
        for role, content in _messages(record["messages"], place):
            if role == "system":  # opens the turn that follows it
                system = f"{content}\n\n"
            elif role == "user":
                yield [self._user, *self._encode(system + content), self._end], False, content
                system = ""
            else:
                yield [self._assistant], False, ""
                yield [*self._encode(content), self._end], True, content

    def _encode(self, text: str) -> list[int]:
        (ids,) = self._encoder([text])
        return ids.tolist()


class ConversationRows(Dataset[dict[str, Tensor]]):
    """Rows of `context` tokens that hold whole records, padded at the end.

    A row is `input_ids` and `labels`, int64 `[context]`; a record longer than a row is cut up.

    Args:
        examples: what is to be learned.
        context: tokens in a row.
        padding: token id behind the last record of a row.
        position_ids: add `position_ids`, which count from 0 at every record, so that a model keeps
            records apart.
        limit: at most so many rows.

    Attributes:
        packed: as of a stream: its length is the number of tokens that are learned, `total_bytes`
            the bytes that they spell.
    """

    def __init__(
        self,
        examples: Iterable[Example],
        context: int,
        padding: int,
        position_ids: bool = False,
        limit: int | None = None,
    ) -> None:
        self.context, self.padding, self.position_ids = context, padding, position_ids
        examples = list(examples)
        self.packed = Learned(
            sum(int((each.labels != NO_LOSS).sum()) for each in examples),
            sum(each.bytes for each in examples),
        )
        self._rows = _fitted(examples, context)[:limit]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids = np.full(self.context, self.padding, np.int64)
        labels = np.full(self.context, NO_LOSS, np.int64)
        positions, at = np.arange(self.context), 0
        for piece, wanted in self._rows[index]:
            here = slice(at, at + len(piece))
            ids[here], labels[here], positions[here] = piece, wanted, np.arange(len(piece))
            at += len(piece)
        row = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
        return row | ({"position_ids": torch.from_numpy(positions)} if self.position_ids else {})


@dataclass(frozen=True)
class Learned:
    """How much of a set of records is learned."""

    tokens: int
    total_bytes: int

    def __len__(self) -> int:
        return self.tokens


def read_examples(source: str, speller: Speller) -> list[Example]:
    """Every record of a source.

    Raises:
        DataError: the source cannot be read, or a record is of another form.
    """
    return [speller(record, place) for place, record in objects(source)]


def read_both(source: str, speller: Speller) -> tuple[list[Example], list[Example]]:
    """The records of a source to learn from, and those held out (as `split.sides` has them).

    Raises:
        DataError: the source cannot be read, or a record is of another form.
    """
    both: dict[str, list[Example]] = {"train": [], "eval": []}
    found = (Document(str(record), {"spelt": speller(record, p)}) for p, record in objects(source))
    for side, document in sides(found):
        both[side].append(document.about["spelt"])
    return both["train"], both["eval"]


def spoken(source: str) -> Iterator[str]:
    """All that is said or told in a source, to learn a tokenizer from.

    Raises:
        DataError: the source cannot be read, or a record is of another form.
    """
    for place, record in objects(source):
        if "messages" in record:
            yield from (content for _, content in _messages(record["messages"], place))
        else:
            yield _text(record, place)


def _text(record: Mapping[str, Any], place: str) -> str:
    text = record.get("text")
    if not isinstance(text, str):
        raise DataError(f"{place}: a record needs 'messages' or 'text'")
    return text


def _messages(messages: Any, place: str) -> Iterator[tuple[str, str]]:
    """Role and content of each turn, checked."""
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{place}: 'messages' is no list of turns")
    for i, turn in enumerate(messages):
        role, content = (turn.get(k) if isinstance(turn, dict) else None for k in _TURN)
        if role not in ROLES or not isinstance(content, str):
            roles = ", ".join(ROLES)
            raise DataError(f"{place}: messages[{i}] needs a 'role' ({roles}) and a 'content'")
        yield role, content


def _fitted(examples: Sequence[Example], context: int) -> list[list[tuple[Ids, Ids]]]:
    """Records (or pieces of a row's length) to rows: each goes to the first row with room."""
    rows: list[list[tuple[Ids, Ids]]] = []
    room: dict[int, int] = {}  # of the rows that are still open, oldest first
    for example in examples:
        for at in range(0, len(example.ids), context):
            piece = example.ids[at : at + context], example.labels[at : at + context]
            size = len(piece[0])
            fits = next((row for row, left in room.items() if left >= size), None)
            if fits is None:
                fits = len(rows)
                rows.append([])
                room[fits] = context
                if len(room) > _OPEN_ROWS:
                    del room[next(iter(room))]
            rows[fits].append(piece)
            room[fits] -= size
    return rows
