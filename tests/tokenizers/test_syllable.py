import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers.decoders import DecodeStream

from spikeloom import tokenizers
from spikeloom.data.encoding import pieces
from spikeloom.inference.generate import Spelling
from spikeloom.tokenizers import syllable
from spikeloom.tokenizers.capitals import LITERAL, MARK
from spikeloom.tokenizers.syllable import agreement, hyphenate

TEXT = (
    "The important photographs of Alice were waiting in the museum. Wonderful weather, wonderful "
    "water! Alice is walking to NASA, and don't forget 1984; the museum's windows were open — é.\n"
)
WORDS = ["the", "The", " The", " Alice", " NASA", "McKay", "don't", "Xylo", " Zo", "é", " é", " É"]
WORDS += ["⇧", " ⇧", LITERAL, " ", "  ", "\n", "\r\n", "\t", "12", " 1984", ", ", "“", "-"]
WORDS += ["你", "🦉", "e\u0301"]
texts = st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map("".join))


@pytest.fixture(scope="module")
def trained():
    return tokenizers.train("syllable", [TEXT] * 5, 400)


def test_words_are_cut_at_syllables(trained):
    text = "the important photographs were waiting"
    assert trained.tokenize(text) == [
        *("the", " im", "por", "tant", " pho", "to", "graphs", " were", " wait", "ing")
    ]


@pytest.mark.parametrize(
    ("word", "syllables"),
    [
        (" important", [" im", "por", "tant"]),
        ("water", ["wa", "ter"]),
        (" a", [" a"]),
        (" 12", [" 12"]),
        ("\n\n", ["\n\n"]),
        (" — ", [" — "]),
    ],
)
def test_hyphenation_adds_up_to_the_word(word, syllables):
    assert hyphenate(word) == syllables


@given(st.text())
def test_hyphenation_of_anything_adds_up(word):
    assert "".join(hyphenate(word)) == word
    assert all(hyphenate(word)) or not word


def test_the_model_cuts_known_words_as_pyphen_does(trained):
    known, agree = agreement(trained, [TEXT])
    assert known == 1
    assert agree == 1
    assert agreement(trained, ["the water the water the unheard"]) == (5 / 6, 1)


def test_scores_are_learned_where_frequencies_mislead(monkeypatch):
    text = "program provide program provide access success access success " * 10 + "process process"
    assert hyphenate(" process") == [" process"]
    assert tokenizers.train("syllable", [text], 400).tokenize(" process") == [" process"]
    monkeypatch.setattr(syllable, "_ROUNDS", 1)  # frequencies alone
    assert tokenizers.train("syllable", [text], 400).tokenize(" process") == [" pro", "cess"]


def test_frequent_syllables_come_first():
    few = tokenizers.train("syllable", ["water water water paper"], 288 + 3)
    assert set(few.get_vocab()) >= {"ter", " wa", "wa"}
    assert few.tokenize("paper") == ["p", "a", "p", "e", "r"]


def test_capitals_are_marks(trained):
    assert trained.tokenize("The NATO") == [MARK, "the", " ", "N", "A", "T", "O"]
    assert trained.tokenize(" the Museum") == [" the", MARK, " mu", "se", "um"]
    assert trained.tokenize("⇧a") == [MARK, LITERAL, "a"]


def test_a_mark_that_no_letter_follows_is_not_shown(trained):
    mark, space, end = trained.convert_tokens_to_ids([MARK, " ", "<|end|>"])
    assert trained.decode([mark]) == ""
    assert trained.decode([mark, space]) == " "
    assert trained.decode([mark, mark, end]) == "<|end|>"


@settings(deadline=None, max_examples=300)
@given(text=texts)
@example(text="The cat (The É) ⇧ ⇧the 你好 e\u0301")
def test_offsets_say_where_in_the_text_a_token_is(trained, text):
    encoding = tokenizers.literal(trained).encode(text)
    reached = 0
    for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
        there = text[start:end]
        assert start <= reached <= end
        assert there
        reached = end
        if token == MARK:
            assert there == MARK or there == " " or "A" <= there <= "Z"
        elif token.startswith("<0x"):
            assert int(token[1:-1], 16) in there.encode()
            assert len(there) == 1
        elif token == LITERAL:
            assert there in (LITERAL, MARK)
        else:
            assert there.lower() == token.lower()
    assert reached == len(text)


@settings(deadline=None, max_examples=200)
@given(text=texts, least=st.integers(1, 9))
def test_a_document_has_the_same_tokens_in_pieces(trained, text, least):
    backend = tokenizers.literal(trained)
    ids = [token for part in pieces(text, least) for token in backend.encode(part).ids]
    assert ids == backend.encode(text).ids


@settings(deadline=None, max_examples=200)
@given(text=texts)
@example(text="Xylophones, É and ⇧ at Zermatt")
def test_token_by_token_it_reads_the_same(trained, text):
    ids = tokenizers.literal(trained).encode(text).ids
    spelling = Spelling(trained)
    shown = "".join(spelling.add(token) for token in ids)
    assert shown == text.rstrip("\ufffd") or shown == text  # waits: bytes may follow a bad one


def test_transformers_streams_it_too(trained):
    text = "The Museum of Xylophones — “NASA”, ⇧ and é."
    stream = DecodeStream(skip_special_tokens=True)
    ids = tokenizers.literal(trained).encode(text).ids
    shown = [stream.step(trained.backend_tokenizer, token) for token in ids]
    assert "".join(piece or "" for piece in shown) == text
