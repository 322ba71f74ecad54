import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from spikeloom import tokenizers
from spikeloom.data.records import (
    Answer,
    Instruction,
    Message,
    Preference,
    Problem,
    Question,
    Span,
    Tagged,
    as_json,
    as_record,
    read_records,
)
from spikeloom.data.show import show
from spikeloom.data.sieve import sieve, texts
from spikeloom.errors import DataError

CONTEXT = "Cats sat in Rome in 1581."
ROME = Answer("Rome", 12)
TURNS = (Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Help"))
CHAT = [{"role": turn.role, "content": turn.content} for turn in TURNS]

SHAPES = {
    "SQuAD, ours": (
        {
            "id": "5",
            "title": "Cat",
            "context": CONTEXT,
            "question": "Where?",
            "answers": [{"text": "Rome", "start": 12}],
        },
        Question("5", "Cat", CONTEXT, "Where?", (ROME,)),
    ),
    "SQuAD, the hub's": (
        {
            "id": "5",
            "title": "Cat",
            "context": CONTEXT,
            "question": "Where?",
            "answers": {"text": ["Rome", "1581"], "answer_start": [12, 20]},
        },
        Question("5", "Cat", CONTEXT, "Where?", (ROME, Answer("1581", 20))),
    ),
    "SQuAD 2, unanswerable": (
        {"context": CONTEXT, "question": "Why?", "answers": {"text": [], "answer_start": []}},
        Question("", "", CONTEXT, "Why?", ()),
    ),
    "FairytaleQA": (
        {"story": "cat", "context": CONTEXT, "question": "Where?", "answers": ["Rome", "at home"]},
        Question("", "cat", CONTEXT, "Where?", (ROME, Answer("at home", None))),
    ),
    "GSM8K": (
        {"question": "48/2?", "answer": "It is 48/2=<<48/2=24>>24.\n#### 24"},
        Problem("48/2?", "It is 48/2=24.", "24"),
    ),
    "Alpaca": (
        {"instruction": "Add", "input": "1 2", "output": "3", "source": "us"},
        Instruction("Add", "1 2", "3", "us"),
    ),
    "Dolly": (
        {"instruction": "Add", "context": "1 2", "response": "3", "category": "qa"},
        Instruction("Add", "1 2", "3", ""),
    ),
    "messages and answers": (
        {"prompt": CHAT, "chosen": "Sure", "rejected": "No"},
        Preference(TURNS, "Sure", "No", ""),
    ),
    "UltraFeedback": (
        {
            "prompt": "Help",
            "chosen": [CHAT[2], {"role": "assistant", "content": "Sure"}],
            "rejected": [CHAT[2], {"role": "assistant", "content": "No"}],
        },
        Preference(TURNS[2:], "Sure", "No", ""),
    ),
    "HH-RLHF": (
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Help\n\nAssistant: Sure",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Help\n\nAssistant: No",
        },
        Preference(TURNS, "Sure", "No", ""),
    ),
    "BIO tags": (
        {
            "tokens": ["New", "York", "Rome", "is", "Sam"],
            "tags": ["B-LOC", "I-LOC", "B-LOC", "O", "I-PER"],
        },
        Tagged(
            "New York Rome is Sam", (Span(0, 8, "LOC"), Span(9, 13, "LOC"), Span(17, 20, "PER"))
        ),
    ),
    "spans": (
        {
            "text": CONTEXT,
            "spans": [
                {"start": 20, "end": 24, "label": "DATE"},
                {"start": 12, "end": 16, "label": "GPE"},
            ],
        },
        Tagged(CONTEXT, (Span(12, 16, "GPE"), Span(20, 24, "DATE"))),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_comes_to_one_form(shape):
    raw, record = SHAPES[shape]
    assert as_record(raw, "here") == record


@pytest.mark.parametrize("shape", SHAPES)
def test_our_form_can_be_read_again(shape, tmp_path):
    record = SHAPES[shape][1]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(as_json(record)) + "\n")
    assert list(read_records(str(path))) == [record]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_record_can_be_shown(shape):
    record = SHAPES[shape][1]
    console = Console(width=200)
    with console.capture() as captured:
        show(record, 1, console)
    shown = captured.get()
    assert type(record).__name__.lower() in shown
    for text in texts(record):
        assert text in shown


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"x": 1, "y": 2}, "'x', 'y' is no shape"),
        ({}, "nothing is no shape"),
        ({"question": "a", "answer": "b"}, "no last line '#### number'"),
        ({"question": "a", "answer": None}, "lacks 'answer'"),
        ({"instruction": 3, "output": ""}, "'instruction' is a int"),
        (
            {"context": "x", "question": "", "answers": [{"text": "y", "start": 0}]},
            "does not hold the answer 'y' at 0",
        ),
        ({"tokens": ["a"], "tags": []}, "1 tokens, but 0 tags"),
        ({"tokens": ["a"], "ner_tags": [0]}, "the tags are numbers"),
        (
            {"text": "ab", "spans": [{"start": 0, "end": 9, "label": "x"}]},
            "no part of 2 characters",
        ),
        ({"text": "ab", "spans": [{"start": 0, "stop": 9}]}, "stop"),
        ({"chosen": "a", "rejected": "b"}, "no prompt"),
    ],
)
def test_what_does_not_fit_is_refused(raw, says):
    with pytest.raises(DataError) as caught:
        as_record(raw, "a.jsonl, line 7")
    assert says in str(caught.value)
    assert str(caught.value).startswith("a.jsonl, line 7: ")
    assert "\n" not in str(caught.value)


@given(st.lists(st.tuples(st.text("abc", min_size=1), st.sampled_from(["O", "B-X", "I-X", "I-Y"]))))
def test_tagged_spans_hold_the_tagged_tokens(pairs):
    tokens, tags = [token for token, _ in pairs], [tag for _, tag in pairs]
    record = as_record({"tokens": tokens, "tags": tags}, "here")
    inside = " ".join(record.text[span.start : span.end] for span in record.spans)
    assert inside.split() == [token for token, tag in pairs if tag != "O"]


def test_a_source_that_holds_no_records_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match="holds no records"):
        list(read_records(str(tmp_path / "a.txt")))


def sifted(records, **given):
    dropped = Counter()
    return list(sieve(records, dropped, **given)), dropped


def test_long_questions_are_left_out():
    short, long = Problem("1 2 3", "", ""), Problem("1 2 3 4", "5", "6")
    prompt = (Message("user", "a b c d e"), Message("user", "a"))
    chat = Preference(prompt, "", "", "")
    kept, dropped = sifted([short, long, chat], max_question_words=3)
    assert kept == [short, chat]
    assert dropped == {"long question": 1}
    assert sifted([long])[0] == [long]


@pytest.mark.parametrize("mark", ["<unk>", "<UNK>", "[UNK]", "<|unk|>"])
def test_marks_of_lost_words_are_left_out(mark):
    lost = Question("", "", f"a {mark} b", "?", ())
    whole = Question("", "", "an unk <a>", "?", ())
    assert sifted([lost, whole]) == ([whole], {"unknown token": 1})


def test_what_a_tokenizer_cannot_write_is_left_out(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    lossy = Tokenizer(models.WordLevel({"cat": 0, "<x>": 1}, unk_token="<x>"))
    PreTrainedTokenizerFast(tokenizer_object=lossy, unk_token="<x>").save_pretrained(
        tmp_path / "lossy"
    )
    records = [Tagged("cat", ()), Tagged("dog", ())]
    assert sifted(records, tokenizer=tmp_path / "lossy") == (records[:1], {"unknown token": 1})
    tokenizers.train("char", ["cat"], 300).save_pretrained(tmp_path / "lossless")
    assert sifted(records, tokenizer=tmp_path / "lossless")[0] == records


def test_texts_are_all_strings_of_a_record():
    assert texts(SHAPES["messages and answers"][1])[-3:] == ["Sure", "No", ""]
