import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from spikeloom import tokenizers
from spikeloom.data import packing
from spikeloom.data.packing import PackedTokens, TokenRows, cache_root, pack
from spikeloom.errors import ConfigError, DataError

STORIES = [f"Story {n}. Once upon a time, fox number {n} ate {n} pears.\n" for n in range(50)]


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.train("bpe", STORIES, 300)


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "stories.jsonl", STORIES)


@pytest.fixture
def packed(source, tokenizer, tmp_path):
    return pack(source, tokenizer, cache_dir=tmp_path / "cache")


def write_source(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return str(path)


def texts_of(packed: PackedTokens, tokenizer) -> list[str]:
    return [
        tokenizer.decode(ids[1:]) for ids in np.split(packed.tokens, packed.documents[1:].tolist())
    ]


def test_every_document_comes_back_in_order(packed, tokenizer):
    assert texts_of(packed, tokenizer) == STORIES
    assert (packed.tokens[packed.documents] == tokenizer.bos_token_id).all()
    assert (packed.tokens == tokenizer.bos_token_id).sum() == len(STORIES)
    assert packed.document_bytes.tolist() == [len(text.encode()) for text in STORIES]
    assert packed.total_bytes == sum(len(text.encode()) for text in STORIES)
    assert packed.tokens.dtype == np.uint16
    assert not packed.tokens.flags.writeable
    assert packed.manifest["tokens"] == len(packed)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.text(min_size=1).filter(lambda text: not text.isspace()), min_size=1, max_size=8),
    st.integers(1, 40),
)
def test_rows_lose_and_repeat_nothing(tokenizer, tmp_path_factory, documents, context):
    folder = tmp_path_factory.mktemp("rows")
    packed = pack(write_source(folder / "a.jsonl", documents), tokenizer, cache_dir=folder)
    assert texts_of(packed, tokenizer) == documents
    context = min(context, len(packed))
    rows = TokenRows(packed, context)
    stream = torch.cat([row["input_ids"] for row in DataLoader(rows, batch_size=None)])
    assert len(packed) - len(stream) < context
    assert stream.tolist() == packed.tokens[: len(stream)].tolist()


def test_text_that_looks_special_is_text(tokenizer, tmp_path):
    text = "he typed <|endoftext|> and <|user|> and went on"
    packed = pack(write_source(tmp_path / "a.jsonl", [text]), tokenizer, cache_dir=tmp_path)
    assert packed.documents.tolist() == [0]
    assert not np.isin(packed.tokens[1:], tokenizer.all_special_ids).any()
    assert texts_of(packed, tokenizer) == [text]


def test_train_and_eval_are_the_whole(source, tokenizer, tmp_path):
    parts = [pack(source, tokenizer, part, 0.2, tmp_path) for part in ("train", "eval")]
    train, held_out = (texts_of(part, tokenizer) for part in parts)
    assert sorted(train + held_out) == sorted(STORIES)
    assert len(held_out) in range(3, 20)


def test_one_short_file_has_both_sides(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("".join(STORIES))
    source = str(tmp_path / "a.txt")
    train, held_out = (pack(source, tokenizer, part, 0.1, tmp_path) for part in ("train", "eval"))
    joined = texts_of(train, tokenizer) + texts_of(held_out, tokenizer)
    assert "".join(joined) == "".join(STORIES)


def test_a_side_with_nothing_in_it_is_refused(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="has no documents for part 'eval'"):
        pack(str(tmp_path / "a.txt"), tokenizer, "eval", cache_dir=tmp_path)
    assert not any((tmp_path / "tokens").iterdir())


def test_the_cache_is_used_again(source, tokenizer, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "encode_documents", None)  # tokenising again would fail
    again = pack(source, tokenizer, cache_dir=tmp_path / "cache")
    assert again.directory == packed.directory
    assert [folder.name for folder in packed.directory.parent.iterdir()] == [again.directory.name]


def test_another_text_tokenizer_or_share_is_another_entry(source, tokenizer, packed, tmp_path):
    cache = tmp_path / "cache"
    other = tokenizers.train("char", STORIES, 300)
    entries = [
        packed,
        pack(source, other, cache_dir=cache),
        pack(source, tokenizer, "eval", 0.2, cache),
        pack(source, tokenizer, "eval", 0.3, cache),
    ]
    os.utime(source, ns=(0, 0))
    entries.append(pack(source, tokenizer, cache_dir=cache))
    assert len({entry.directory for entry in entries}) == 5


@pytest.mark.parametrize(
    "name",
    ["tokens-00000.bin", "documents-00000.npy", "document_bytes-00000.npy", "stream.json"],
)
@pytest.mark.parametrize("damage", ["gone", "empty", "short"])
def test_a_damaged_entry_is_packed_again(source, tokenizer, packed, tmp_path, name, damage):
    file = packed.directory / name
    whole = file.read_bytes()
    file.unlink() if damage == "gone" else file.write_bytes(b"" if damage == "empty" else whole[:9])
    with pytest.raises(DataError, match="not a whole token stream"):
        PackedTokens(packed.directory)
    again = pack(source, tokenizer, cache_dir=tmp_path / "cache")
    assert texts_of(again, tokenizer) == STORIES


def test_a_cache_that_cannot_be_written_is_said_so(source, tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*SPIKELOOM_CACHE"):
        pack(source, tokenizer, cache_dir=tmp_path / "file")


def test_the_cache_root(monkeypatch, tmp_path):
    monkeypatch.delenv("SPIKELOOM_CACHE", raising=False)
    assert cache_root() == Path.home() / ".cache" / "spikeloom"
    monkeypatch.setenv("SPIKELOOM_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    assert cache_root(tmp_path / "x") == tmp_path / "x"


@pytest.mark.parametrize(("part", "share"), [("test", 0.05), ("eval", 0.0), ("eval", 1.0)])
def test_impossible_parts_and_shares_are_refused(source, tokenizer, part, share):
    with pytest.raises(ConfigError):
        pack(source, tokenizer, part, share)


def test_a_tokenizer_without_an_opening_token_is_refused(source, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "bare")
    bare = AutoTokenizer.from_pretrained(tmp_path / "bare", bos_token=None, eos_token=None)
    with pytest.raises(ConfigError, match="neither bos_token nor eos_token"):
        pack(source, bare)


def test_a_large_vocabulary_takes_four_bytes(source, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "large")
    large = AutoTokenizer.from_pretrained(tmp_path / "large")
    large.add_tokens([f"[extra {n}]" for n in range(1 << 16)])
    packed = pack(source, large, cache_dir=tmp_path)
    assert packed.tokens.dtype == np.uint32
    assert texts_of(packed, large) == STORIES


def test_padding_and_truncation_left_on_a_tokenizer_do_not_matter(source, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "used")
    used = AutoTokenizer.from_pretrained(tmp_path / "used")
    before = tokenizers.fingerprint(used)
    used(["a", "a longer text"], padding=True, truncation=True, max_length=4)
    assert tokenizers.fingerprint(used) == before
    assert texts_of(pack(source, used, cache_dir=tmp_path), used) == STORIES


def test_a_context_longer_than_the_data_is_refused(packed):
    size = len(packed)
    assert len(TokenRows(packed, size)) == 1
    with pytest.raises(DataError, match=f"context {size + 1} is longer than the data"):
        TokenRows(packed, size + 1)
    with pytest.raises(ConfigError, match="at least 1"):
        TokenRows(packed, 0)


def test_positions_restart_at_rows_and_documents(packed):
    starts = set(packed.documents.tolist())
    rows = TokenRows(packed, 16, position_ids=True)
    for index in range(len(rows)):
        count = -1
        for offset, position in enumerate(rows[index]["position_ids"].tolist()):
            restart = offset == 0 or index * 16 + offset in starts
            count = 0 if restart else count + 1
            assert position == count


def test_rows_are_int64_and_end(packed):
    rows = TokenRows(packed, 16)
    row = rows[0]
    assert row["input_ids"].dtype == row["labels"].dtype == torch.int64
    assert torch.equal(row["input_ids"], row["labels"])
    assert "position_ids" not in row
    with pytest.raises(IndexError):
        rows[len(rows)]


def test_rows_pickle_as_a_path(packed):
    rows = TokenRows(packed, 16, position_ids=True)
    frozen = pickle.dumps(rows)
    assert len(frozen) < 1000
    assert torch.equal(pickle.loads(frozen)[3]["input_ids"], rows[3]["input_ids"])
