import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom import tokenizers
from spikeloom.data.conditioning import NO_LOSS, ConditionedRows, Prefixes, metadata_values
from spikeloom.data.packing import TokenRows, pack
from spikeloom.errors import DataError

TEXTS = [f"Story {n}. Once upon a time, fox number {n} ate {n} pears.\n" * 3 for n in range(20)]
HEADS = "Category: tales\nSource: books\nId: 0123456789.\n\n"


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.train("char", [*TEXTS, HEADS], 300)


def packed_of(folder, texts, tokenizer, abouts):
    lines = [json.dumps({"text": text, **about}) for text, about in zip(texts, abouts, strict=True)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return pack(str(folder / "a.jsonl"), tokenizer, cache_dir=folder)


@pytest.fixture(scope="module")
def packed(tokenizer, tmp_path_factory):
    abouts = [{"category": ["tales", "facts"][n % 2]} for n in range(len(TEXTS))]
    return packed_of(tmp_path_factory.mktemp("packed"), TEXTS, tokenizer, abouts)


def test_prefixes_are_lines_and_a_blank_one(tokenizer):
    prefixes = Prefixes(tokenizer, ("category", "source", "id"))

    def spelt(about, chunk=None):
        return tokenizer.decode(prefixes.ids(about, chunk).tolist())

    about = {"category": "old \n tales", "source": "books", "title": "x"}
    assert spelt(about, "012.3") == "Category: old tales\nSource: books\nId: 012.3\n\n"
    assert spelt({"source": "books"}) == "Source: books\n\n"
    assert spelt({}) == ""
    assert tokenizer.decode(Prefixes(tokenizer, ("category",)).ids(about, "1.2").tolist()) == (
        "Category: old tales\n\n"
    )


def test_a_row_opens_with_what_is_known(packed, tokenizer):
    rows = ConditionedRows(packed, 100, Prefixes(tokenizer, ("category",)))
    text = tokenizer.decode(rows[0]["input_ids"].tolist())
    head = "<|endoftext|>Category: tales\n\n"
    assert text.startswith(f"{head}Story 0. Once")
    size = len(tokenizer.encode(head))
    assert (rows[0]["labels"][:size] == NO_LOSS).all()
    assert torch.equal(rows[0]["labels"][size:], rows[0]["input_ids"][size:])
    within = tokenizer.decode(rows[1]["input_ids"].tolist())  # goes on in the same document
    assert within.startswith(head)
    assert not within.startswith(f"{head}Story")
    assert "<|endoftext|>Category: facts\n\nStory 1." in within + tokenizer.decode(
        rows[2]["input_ids"]
    )


documents = st.lists(
    st.tuples(st.text("abc .", min_size=1, max_size=60), st.sampled_from(["x", "yy", None])),
    min_size=1,
    max_size=8,
).filter(lambda found: all(text.strip() for text, _ in found) and any(c for _, c in found))


@settings(deadline=None, max_examples=60)
@given(documents, st.integers(52, 80), st.booleans(), st.booleans())
def test_every_token_of_a_text_has_a_loss_once(tokenizer, tmp_path_factory, found, L, ids, apart):
    texts, categories = zip(*found, strict=True)
    abouts = [{} if category is None else {"category": category} for category in categories]
    packed = packed_of(tmp_path_factory.mktemp("p"), texts, tokenizer, abouts)
    fields = ("category", "id") if ids else ("category",)
    if len(packed) < L:
        return
    rows = ConditionedRows(packed, L, Prefixes(tokenizer, fields), position_ids=apart)
    learned = []
    for n in range(len(rows)):
        row = rows[n]
        assert all(len(row[key]) == L for key in row)
        assert row["input_ids"][0] == tokenizer.bos_token_id
        kept = row["labels"] != NO_LOSS
        assert torch.equal(row["labels"][kept], row["input_ids"][kept])
        learned += row["labels"][kept].tolist()
        if apart:
            opens = row["input_ids"] == tokenizer.bos_token_id
            assert torch.equal(row["position_ids"] == 0, opens)
    bos = tokenizer.bos_token_id
    stream = [token for token in np.asarray(packed.tokens).tolist() if token != bos]
    text = [token for token in learned if token != bos]
    assert text == stream[: len(text)]
    assert len(stream) - len(text) < L  # what does not fill a row


def test_each_row_has_a_plain_form(packed, tokenizer):
    rows = ConditionedRows(packed, 64, Prefixes(tokenizer, ("category",)), position_ids=True)
    plain = TokenRows(packed, 64, position_ids=True)
    assert len(rows) > len(plain)
    seen = {tuple(rows[n]["plain_input_ids"].tolist()) for n in range(len(rows))}
    assert seen == {tuple(plain[n]["input_ids"].tolist()) for n in range(len(plain))}
    assert {"plain_labels", "plain_position_ids"} < rows[0].keys()
    with pytest.raises(IndexError):
        rows[len(rows)]


def test_rows_can_be_sent_to_workers(packed, tokenizer):
    rows = ConditionedRows(packed, 64, Prefixes(tokenizer, ("category", "id")))
    there = pickle.loads(pickle.dumps(rows))
    assert torch.equal(there[5]["input_ids"], rows[5]["input_ids"])


def test_metadata_that_does_not_fit_is_refused(packed, tokenizer):
    with pytest.raises(DataError, match="no document has a source"):
        ConditionedRows(packed, 64, Prefixes(tokenizer, ("source",)))
    with pytest.raises(DataError, match="takes up to 17 of a row's 32 tokens"):
        ConditionedRows(packed, 32, Prefixes(tokenizer, ("category",)))


def test_the_values_of_a_field(packed):
    assert metadata_values(packed, ("category", "id"), 9) == {"category": ["facts", "tales"]}
    assert metadata_values(packed, ("category",), 1) == {}
