"""The rows of a run: of a packed stream, with metadata before its texts, or of conversations."""

from __future__ import annotations

from typing import Any

from spikeloom.config import TrainingConfig
from spikeloom.data.conditioning import ConditionedRows, Prefixes, metadata_values
from spikeloom.data.conversations import (
    ConversationRows,
    Learned,
    Speller,
    read_both,
    read_examples,
)
from spikeloom.data.packing import PackedTokens, TokenRows, pack
from spikeloom.errors import DataError
from spikeloom.training.run_directory import processes

Rows = TokenRows | ConditionedRows | ConversationRows
HeldOut = TokenRows | ConversationRows

MOST_VALUES = 1000  # of a metadata field that run.json lists


def make_rows(
    config: TrainingConfig, data: str, eval_data: str | None, words: Any
) -> tuple[Rows, HeldOut]:
    """Rows to train on, and rows held out.

    Raises:
        DataError: there is not enough text for one batch.
    """
    make = _conversation_rows if config.chat else _text_rows
    rows, held_out = make(config, data, eval_data, words)
    at_a_time = config.batch_size * processes()
    if len(rows) < at_a_time:
        raise DataError(
            f"the data has {len(rows)} rows of {config.context} tokens, a batch needs {at_a_time}: "
            "use more text, or lower training.batch_size or training.context"
        )
    return rows, held_out


def tokens_per_byte(packed: PackedTokens | Learned) -> float:
    """To turn a loss per token into one per byte."""
    return len(packed) / packed.total_bytes


def metadata_of(rows: Rows, config: TrainingConfig) -> dict[str, list[str]]:
    """The values of each metadata field that rows were conditioned on, for `run.json`."""
    if not isinstance(rows, ConditionedRows):
        return {}
    return metadata_values(rows.packed, config.metadata, MOST_VALUES)


def _text_rows(
    config: TrainingConfig, data: str, eval_data: str | None, words: Any
) -> tuple[Rows, HeldOut]:
    assert config.context is not None
    held_out = pack(eval_data or data, words, part="all" if eval_data else "eval")
    packed = pack(data, words, part="all" if eval_data else "train")
    separate = config.separate_documents
    rows: Rows = TokenRows(packed, config.context, position_ids=separate)
    if config.metadata:
        rows = ConditionedRows(packed, config.context, Prefixes(words, config.metadata), separate)
    limit = _held_out_rows(config)
    return rows, TokenRows(held_out, config.context, position_ids=separate, limit=limit)


def _conversation_rows(
    config: TrainingConfig, data: str, eval_data: str | None, words: Any
) -> tuple[Rows, HeldOut]:
    assert config.context is not None
    speller = Speller(words)
    if eval_data is None:
        learned, held_out = read_both(data, speller)
    else:
        learned, held_out = read_examples(data, speller), read_examples(eval_data, speller)
    shape = (config.context, words.pad_token_id or 0, config.separate_documents)
    limit = _held_out_rows(config)
    return ConversationRows(learned, *shape), ConversationRows(held_out, *shape, limit=limit)


def _held_out_rows(config: TrainingConfig) -> int:
    assert config.context is not None
    return max(1, config.eval_tokens // config.context)
