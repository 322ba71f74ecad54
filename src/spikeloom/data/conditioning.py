"""Rows that say where their text comes from: metadata conditioning, then a cool-down (MeCo).

Gao et al. 2025, "Metadata Conditioning Accelerates Language Model Pre-training": what is known of a
document stands before its text, no loss is taken on it, and the last tenth of training goes without
it, so that the model also works when nothing is known. Ours is one line a field, then a blank one:

    <|endoftext|>Category: history
    Source: wikipedia

    The text …

A row that begins within a document opens in the same way. `id` adds the retrieval id of the chunk
(`Id: 0123.04`: document 123, its fifth chunk of `CHUNK_TOKENS`), which `spikeloom trace` prints
too; its digits are spelt one by one, so that all ids are equally long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from spikeloom.data.packing import TokenRows
from spikeloom.data.shards import PackedTokens
from spikeloom.errors import DataError
from spikeloom.tokenizers import literal

CHUNK_TOKENS = 256
NO_LOSS = -100
PLAIN = "plain_"
"""Before the keys of a row's form without metadata."""

Ids = NDArray[np.int64]


class Prefixes:
    """Token ids of the metadata before a text; training and generation spell them alike.

    Args:
        tokenizer: of the model.
        fields: of `spikeloom.config.METADATA_FIELDS`, in the order in which they stand.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, fields: Sequence[str]) -> None:
        self._backend = literal(tokenizer)
        self.fields = tuple(fields)
        self._known: dict[tuple[str | None, ...], Ids] = {}

    def ids(self, about: Mapping[str, Any], chunk: str | None = None) -> Ids:
        """The ids for a document, or for nothing known none at all.

        Args:
            about: what is known; fields that it lacks are left out.
            chunk: the retrieval id, if `id` is a field.
        """
        values = tuple(_value(about.get(field)) for field in self.fields if field != "id")
        if values not in self._known:
            self._known[values] = self._lines(values)
        lines = self._known[values]
        number = self._number(chunk) if chunk is not None and "id" in self.fields else lines[:0]
        if not len(lines) + len(number):
            return lines
        return np.concatenate([lines, number, self._encode("\n")])

    def _lines(self, values: tuple[str | None, ...]) -> Ids:
        named = zip((field for field in self.fields if field != "id"), values, strict=True)
        lines = (f"{field.capitalize()}: {value}\n" for field, value in named if value)
        return self._encode("".join(lines))

    def _number(self, chunk: str) -> Ids:
        return np.concatenate([self._encode(piece) for piece in ("Id: ", *chunk, "\n")])

    def _encode(self, text: str) -> Ids:
        return np.asarray(self._backend.encode(text, add_special_tokens=False).ids, np.int64)


class ConditionedRows(Dataset[dict[str, Tensor]]):
    """Rows of `context` tokens with metadata, each with a plain row for the cool-down.

    Over all rows, every token of every text has a loss exactly once. A row has the keys of
    `TokenRows`, and the same behind `plain_` for a row of the same stream without metadata, which
    `SpikeTrainer` takes at the end of training.

    Args:
        packed: the stream.
        context: tokens in a row.
        prefixes: what stands before a text.
        position_ids: see `TokenRows`.

    Raises:
        DataError: no document has the fields, less than one row, or a prefix fills half a row.
    """

    def __init__(
        self, packed: PackedTokens, context: int, prefixes: Prefixes, position_ids: bool = False
    ) -> None:
        self.plain = TokenRows(packed, context, position_ids)
        self.packed = packed
        self.context = context
        self._opening = int(packed.tokens[:1][0])
        self._documents = np.append(packed.documents, len(packed))
        self._chunks = ChunkIds(packed)
        self._prefixes = prefixes
        self._about = _shared(_fields_of(about, prefixes.fields) for about in packed.about())
        self._sizes = [len(self._prefix(d, int(at))) for d, at in enumerate(packed.documents)]
        self._check(prefixes.fields)
        self._starts = self._plan()

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        row = self._row(int(self._starts[index]))
        plain = self.plain[index * len(self.plain) // len(self)]
        return row | {f"{PLAIN}{key}": value for key, value in plain.items()}

    def _row(self, at: int) -> dict[str, Tensor]:
        """The row whose text starts at an offset of the stream, which may open a document."""
        ids: list[Ids] = []
        labels: list[Ids] = []
        starts: list[int] = []
        size = 0
        document = int(np.searchsorted(self._documents, at, side="right")) - 1
        while size < self.context:
            starts.append(size)
            head = np.append(self._opening, self._prefix(document, at))
            begin = max(at, int(self._documents[document]) + 1)
            stop = min(int(self._documents[document + 1]), begin + self.context)
            text = np.asarray(self.packed.tokens[begin:stop]).astype(np.int64)
            silent = np.full_like(head, NO_LOSS)
            silent[0] = self._opening if size else NO_LOSS  # that a document ends is learned
            ids += [head, text]
            labels += [silent, text]
            size += len(head) + len(text)
            document, at = document + 1, stop
            if document == len(self._documents) - 1:
                break
        row = {
            "input_ids": torch.from_numpy(np.concatenate(ids)[: self.context]),
            "labels": torch.from_numpy(np.concatenate(labels)[: self.context]),
        }
        if self.plain.position_ids:
            row["position_ids"] = torch.from_numpy(_positions(starts, self.context))
        return row

    def _plan(self) -> Ids:
        """Where the text of each whole row starts."""
        starts: list[int] = []
        at, document, last = 0, 0, len(self._documents) - 1
        while True:
            start, room = at, self.context
            while document < last and room > 0:
                room -= 1 + self._sizes[document]
                at = max(at, int(self._documents[document]) + 1) if room > 0 else at
                step = min(max(room, 0), int(self._documents[document + 1]) - at)
                at, room = at + step, room - step
                if at == self._documents[document + 1]:
                    document += 1
            if room > 0:
                return np.asarray(starts, np.int64)
            starts.append(start)

    def _prefix(self, document: int, at: int) -> Ids:
        chunk = (at - int(self._documents[document])) // CHUNK_TOKENS
        return self._prefixes.ids(self._about[document], self._chunks.name(document, chunk))

    def _check(self, fields: Sequence[str]) -> None:
        if "id" not in fields and not any(self._about):
            raise DataError(
                f"no document has a {' or '.join(fields)}: name them as `spikeloom data clean` "
                "does, or set training.metadata to []"
            )
        if 2 * (1 + max(self._sizes)) > self.context:
            raise DataError(
                f"metadata takes up to {max(self._sizes)} of a row's {self.context} tokens: "
                "raise training.context, or name fewer fields in training.metadata"
            )
        if not len(self.plain):
            raise DataError("the data has less than one row")


class ChunkIds:
    """Retrieval ids of the chunks of a stream, `document.chunk`, all equally long."""

    def __init__(self, packed: PackedTokens) -> None:
        sizes = np.diff(np.append(packed.documents, len(packed)))
        self._digits = len(str(len(sizes))), len(str(int(sizes.max()) // CHUNK_TOKENS))

    def name(self, document: int, chunk: int) -> str:
        """Of a chunk of a document, both counted from 0."""
        return f"{document:0{self._digits[0]}}.{chunk:0{self._digits[1]}}"


def metadata_values(packed: PackedTokens, fields: Sequence[str], most: int) -> dict[str, list[str]]:
    """The values of each field but `id`, sorted; fields with more than `most` are left out."""
    values: dict[str, set[str]] = {field: set() for field in fields if field != "id"}
    for about in packed.about():
        for field, found in values.items():
            if (value := _value(about.get(field))) is not None:
                found.add(value)
    return {field: sorted(found) for field, found in values.items() if len(found) <= most}


def _shared(abouts: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """One dictionary for all documents of which the same is known."""
    known: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    return [known.setdefault(tuple(about.items()), about) for about in abouts]


def _fields_of(about: Mapping[str, Any], fields: Sequence[str]) -> dict[str, str]:
    named = ((field, _value(about.get(field))) for field in fields if field != "id")
    return {field: value for field, value in named if value is not None}


def _value(value: Any) -> str | None:
    """A field's value in one line, or None."""
    return " ".join(str(value).split()) or None if value is not None else None


def _positions(starts: list[int], context: int) -> Ids:
    """Positions in a row that count from 0 at each start."""
    where = np.arange(context)
    begun = np.asarray(starts)[np.searchsorted(starts, where, side="right") - 1]
    return where - begun
