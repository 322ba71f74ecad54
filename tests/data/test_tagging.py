"""Words, tags, pieces and rows; and labelled data that cannot be."""

import json

import pytest

from spikeloom import tokenizers
from spikeloom.data.records import Span, Tagged
from spikeloom.data.tagging import (
    UNLABELLED,
    RowMaker,
    label_names,
    parts,
    read_tagged,
    require_labels,
    spans_of,
    tags_of,
    words_of,
)
from spikeloom.errors import ConfigError, DataError

TEXT = "Call Ann Lee, or Bo."
SPANS = (Span(5, 12, "PER"), Span(17, 19, "PER"))
LABELS = ("O", "B-PER", "I-PER")


def spelled(text):
    return [text[start:end] for start, end in words_of(text)]


def test_words_are_small_enough_for_any_span():
    assert spelled(TEXT) == ["Call", "Ann", "Lee", ",", "or", "Bo", "."]
    assert spelled("a@b.com,\nÉmile’s 555-0100") == [
        *("a", "@", "b", ".", "com", ",", "Émile", "’", "s", "555", "-", "0100")
    ]
    assert words_of(" \n") == []


def test_tags_and_spans_are_the_same_said_twice():
    words = words_of(TEXT)
    tags = tags_of(words, SPANS)
    assert tags == ["O", "B-PER", "I-PER", "O", "O", "B-PER", "O"]
    assert spans_of(words, tags) == SPANS


def test_neighbours_of_a_type_stay_two():
    words = words_of("Ann Bo")
    two = (Span(0, 3, "PER"), Span(4, 6, "PER"))
    assert spans_of(words, tags_of(words, two)) == two


def test_a_span_that_cuts_words_takes_them_whole():
    words = words_of("Mr. McAnn")
    assert spans_of(words, tags_of(words, (Span(6, 9, "PER"),))) == (Span(4, 9, "PER"),)


@pytest.mark.parametrize("tags", [["I-PER", "O"], ["B-LOC", "I-PER"]])
def test_an_i_without_a_beginning_begins(tags):
    assert spans_of([(0, 1), (2, 3)], tags)[-1].label == "PER"
    assert len(spans_of([(0, 1), (2, 3)], tags)) == len([t for t in tags if t != "O"])


def test_labels_are_in_order():
    records = [Tagged("a b", (Span(0, 1, "X"),)), Tagged("c", (Span(0, 1, "A"),))]
    assert label_names(records) == ("O", "B-A", "I-A", "B-X", "I-X")


@pytest.fixture(scope="module")
def letters():
    return tokenizers.train("char", [TEXT], 300)


def rows_of(tokenizer, context, text=TEXT):
    words = words_of(text)
    return RowMaker(tokenizer, LABELS, context).rows(text, words, tags_of(words, SPANS))


def test_the_first_piece_carries_the_label(letters):
    (row,) = rows_of(letters, 64)
    assert letters.decode(row.input_ids, skip_special_tokens=True) == TEXT
    assert row.input_ids[0] == letters.bos_token_id
    #        <>C a l l _ A n n _ L e e , _ o r _ B o .
    first = [0, 1, 5, 9, 13, 14, 17, 20]
    assert [i for i, label in enumerate(row.labels) if label != UNLABELLED] == first[1:]
    assert [label for label in row.labels if label != UNLABELLED] == [0, 1, 2, 0, 0, 1, 0]


def test_a_long_text_becomes_rows_that_break_behind_sentences(letters):
    rows = rows_of(letters, 11)
    assert all(len(row.input_ids) <= 11 for row in rows)
    labels = [label for row in rows for label in row.labels if label != UNLABELLED]
    assert labels == [0, 1, 2, 0, 0, 1, 0]
    text = "One two. Three four"
    written = [letters.decode(r.input_ids[1:]) for r in rows_of(letters, 15, text)]
    assert written == ["One two.", " Three four"]


def test_a_word_longer_than_a_row_is_cut(letters):
    (row,) = rows_of(letters, 5, "Incomprehensible")
    assert len(row.input_ids) == 5
    with pytest.raises(ConfigError, match=r"training.context: 1 leaves no room"):
        RowMaker(letters, LABELS, 1)


def written(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


GOOD = {"tokens": ["Ann"], "tags": ["B-PER"]}


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"tokens": ["a", "b"], "tags": ["O", "PER"]}, r"tags\[1\]: 'PER' is none of O, B-TYPE"),
        ({"tokens": ["a"], "tags": ["B-"]}, r"tags\[0\]: 'B-'"),
        ({"text": "ab", "spans": [{"start": 0, "end": 3, "label": "X"}]}, r"spans\[0\]: 0 to 3 is"),
        ({"text": "ab", "spans": [{"start": 1, "end": 1, "label": "X"}]}, r"spans\[0\]: 1 to 1 is"),
        ({"text": "ab", "spans": [{"start": "0", "end": 1, "label": "X"}]}, r"'0' to 1 is no part"),
        ({"text": "ab", "spans": [{"start": 0, "end": 1, "label": ""}]}, r"spans\[0\].label: ''"),
        ({"text": "ab", "spans": [{"start": 0}]}, r"spans\[0\]: \{'start': 0\} is not"),
        (
            {
                "text": "abc",
                "spans": [
                    {"start": 0, "end": 2, "label": "X"},
                    {"start": 1, "end": 3, "label": "Y"},
                ],
            },
            r"spans\[1\]: .* overlaps another",
        ),
        ({"question": "q", "steps": "s", "answer": "a"}, "record 1: a problem has no labels"),
    ],
)
def test_impossible_labels_are_refused_by_field_index_and_value(tmp_path, record, why):
    with pytest.raises(DataError, match=why):
        read_tagged(written(tmp_path / "bad.jsonl", GOOD, record))


def test_labels_that_are_none_or_unknown_are_refused(tmp_path):
    with pytest.raises(DataError, match="1 records without a labelled span"):
        read_tagged(written(tmp_path / "none.jsonl", {"tokens": ["a"], "tags": ["O"]}))
    records = [Tagged("a", ()), Tagged("b", (Span(0, 1, "PERS"),))]
    with pytest.raises(DataError, match=r"record 1, spans\[0\].label: 'PERS'.*mean 'PER'"):
        require_labels(records, LABELS, "x.jsonl")


def test_a_folder_with_a_held_out_file(tmp_path):
    assert parts(str(tmp_path)) == (str(tmp_path), None)
    for name in ("train.jsonl", "dev.jsonl"):
        written(tmp_path / name, GOOD)
    assert parts(str(tmp_path)) == (f"{tmp_path}/train.jsonl", f"{tmp_path}/dev.jsonl")
    assert parts(f"{tmp_path}/train.jsonl") == (f"{tmp_path}/train.jsonl", None)
