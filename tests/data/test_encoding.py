import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from spikeloom import tokenizers
from spikeloom.data import encoding
from spikeloom.data.encoding import encode_documents, pieces
from spikeloom.errors import DataError

TEXT = ["the quick brown fox's 1234 tales\n\n  of  over-ripe pears,\tand so on…\n"] * 3


@pytest.fixture(scope="module")
def bpe():
    return tokenizers.train("bpe", TEXT, 330)


words = st.lists(
    st.sampled_from(["the", "fox's", " ", "  ", "\n", "\n\n", "12345", "…", "!?", "é", "_", "\t"])
)


@settings(deadline=None)
@given(words.map("".join), st.integers(1, 9))
def test_pieces_are_the_text(text, least):
    parts = list(pieces(text, least))
    assert "".join(parts) == text
    assert all(len(part) >= least for part in parts[:-1])


@settings(deadline=None)
@given(words.map("".join), st.integers(1, 9))
def test_a_document_has_the_same_tokens_in_pieces(bpe, text, least):
    backend = tokenizers.literal(bpe)
    ids = [token for part in pieces(text, least) for token in backend.encode(part).ids]
    assert ids == backend.encode(text).ids


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), max_size=20))
def test_small_batches_give_the_same_pieces_as_one(bpe, documents):
    whole = list(encode_documents(documents, bpe))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_BATCH_PIECES", 2)
        small = list(encode_documents(documents, bpe))
    assert [piece.text_bytes for piece in whole] == [len(text.encode()) for text in documents]
    for one, other in zip(whole, small, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)


seams = st.text(st.sampled_from("abS1é²\u0301'’.,-_ \n\r\t\u00a0"), max_size=20)


@settings(deadline=None, max_examples=300)
@given(st.one_of(words.map("".join), seams, st.text(max_size=60)))
def test_word_by_word_gives_the_same_tokens(bpe, text):
    backend = tokenizers.literal(bpe)
    encode = encoding.encoder(backend)
    assert isinstance(encode, encoding._Words)
    for _ in range(2):  # learned, then known
        (ids,) = encode([text])
        assert ids.tolist() == backend.encode(text).ids


def test_the_table_of_words_stays_small(bpe, monkeypatch):
    monkeypatch.setattr(encoding, "_MOST_WORDS", 3)
    encode = encoding._Words(tokenizers.literal(bpe))
    for text in ("one two three four", "five one", "two"):
        (ids,) = encode([text])
        assert bpe.decode(ids) == text
    assert len(encode._numbers) == 3


def test_a_tokenizer_that_may_join_words_is_asked_for_whole_texts(bpe):
    backend = tokenizers.literal(bpe)
    backend.add_tokens(["quick brown"])
    assert not isinstance(encoding.encoder(backend), encoding._Words)
    char = tokenizers.train("char", TEXT, 300)
    assert not isinstance(encoding.encoder(tokenizers.literal(char)), encoding._Words)


def test_only_the_first_piece_opens_a_document(bpe):
    long = "two words " * (encoding.PIECE_CHARACTERS // 4)
    opens = [piece.opens_document for piece in encode_documents([long, "short"], bpe)]
    assert opens == [True, False, False, True]


def test_a_tokenizer_that_swallows_text_is_refused():
    from tokenizers import Tokenizer, models

    mute = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    with pytest.raises(DataError, match="no tokens for 'hello'"):
        list(encode_documents(["hello"], mute))
