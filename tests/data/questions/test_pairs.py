import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeloom.data.questions.cloze import GAP, cloze_pairs
from spikeloom.data.questions.pairs import Pair, check
from spikeloom.data.questions.sections import sections, sentences
from spikeloom.data.records import Answer

SECTION = "In 1900 “Anna’s” boat – the big\none – sank. In 1900 too."


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("1900", "1900"),
        (" boat ", "boat"),
        ("ANNA'S", "Anna’s"),
        ("the big one", "the big\none"),
        ("boat - the", "boat – the"),
        ("sank.", "sank."),
        ("Too.", "too"),
    ],
)
def test_answers_are_found_as_they_stand(answer, text):
    found = check(Pair("When?", answer), SECTION, set())
    assert found == Answer(text, SECTION.index(text))


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (Pair("", "boat"), "empty"),
        (Pair("What?", " "), "empty"),
        (Pair("Name it.", "boat"), "not a question"),
        (Pair("What was big here?", "boat"), "long question"),
        (Pair("WHO?", "boat"), "asked twice"),
        (Pair("What?", "boat " * 50), "long answer"),
        (Pair("What?", "ship"), "answer not in the section"),
        (Pair("What?", "oat"), None),
        (Pair("What?", "OAT"), "answer not in the section"),  # letters of another word
        (Pair("What?", "(.*)"), "answer not in the section"),
    ],
)
def test_reasons(pair, reason):
    found = check(pair, SECTION, {"who?"}, max_question_words=3)
    assert found == reason if reason else isinstance(found, Answer)


def test_a_known_place_is_kept():
    second = SECTION.rindex("1900")
    assert check(Pair("When?", "1900", second), SECTION, set()) == Answer("1900", second)


@given(st.text("ab. \n=A", max_size=300), st.integers(1, 6))
def test_sections_lose_nothing(text, count):
    parts = sections(text, count)
    assert len(parts) <= count
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part == part.strip() != "" for part in parts)


def test_sections_are_even_and_begin_with_headings():
    paragraphs = ["word " * 40 for _ in range(20)]
    for number in (4, 9, 13):
        paragraphs[number] = f"== Part {number} ==\n\n{paragraphs[number]}"
    parts = sections("\n\n".join(paragraphs))
    assert len(parts) == 5
    assert [part[:7] for part in parts].count("== Part") >= 2
    assert max(map(len, parts)) < 2 * min(map(len, parts))


def test_sentences():
    text = "== Life ==\nMr. Fox ran. He met J. Hare! “Really?” Yes, e.g. Dr. Dog.\n\nNew line"
    found = sentences(text)
    told = [sentence for _, sentence in found]
    assert told == [
        "Mr. Fox ran.",
        "He met J. Hare!",
        "“Really?”",
        "Yes, e.g. Dr. Dog.",
        "New line",
    ]
    assert all(text[start:].lstrip().startswith(sentence) for start, sentence in found)


@pytest.mark.parametrize(
    ("sentence", "kind", "answer"),
    [
        ("The treaty was signed on 4 May 1921 by all of the delegates.", "date", "4 May 1921"),
        ("The treaty was signed on May 4, 1921 by all of the delegates.", "date", "May 4, 1921"),
        ("The treaty was signed in 1921 by all of the delegates there.", "year", "1921"),
        ("The treaty was signed by the Queen of Spain and some others.", "name", "Queen of Spain"),
        ("The river flows for about 1,200 km before it meets the sea.", "number", "1,200 km"),
    ],
)
def test_what_is_asked_for(sentence, kind, answer):
    (pair,) = cloze_pairs(sentence)
    assert pair.answer == answer
    assert pair.question == f'Which {kind} fills the gap? "{sentence.replace(answer, GAP)}"'


@pytest.mark.parametrize(
    "sentence",
    [
        "Treaties are signed by all who wish to, and by nobody else ever.",
        "It was Anna who saw the boat, and it was Anna who told the others.",
        "Signed by Anna.",
    ],
    ids=["nothing to ask", "given away", "too short"],
)
def test_what_is_not_asked(sentence):
    assert cloze_pairs(sentence) == []


@given(st.text("Ab1 .,\n’", max_size=400))
def test_gap_answers_are_always_spans(text):
    asked = set()
    for pair in cloze_pairs(text):
        assert text[pair.start : pair.start + len(pair.answer)] == pair.answer
        assert isinstance(check(pair, text, asked), Answer) or pair.question.lower() in asked
