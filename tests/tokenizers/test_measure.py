import pytest

from spikeloom import tokenizers
from spikeloom.errors import DataError
from spikeloom.tokenizers.measure import Piece, measure, pieces


@pytest.fixture(scope="module")
def char():
    return tokenizers.train("char", ["né à"], 263)


def test_the_figures_of_a_text_counted_by_hand(char):
    # 4 characters, of which é and à are known; ï is written with two bytes
    figures = measure(char, ["né à", "ï ï\n"])
    assert figures.vocab_size == 263
    assert figures.tokens == 4 + 6
    assert figures.bytes_per_token == 12 / 10
    assert figures.characters_per_token == 8 / 10
    assert figures.tokens_per_word == 10 / 4
    assert figures.byte_share == 4 / 10
    assert figures.vocabulary_use == len({"n", "é", " ", "à", "<0xC3>", "<0xAF>", "\n"}) / 263
    assert figures.restored == 1
    assert figures.megabytes_per_second > 0


def test_a_tokenizer_that_changes_the_text_is_found_out(char):
    from tokenizers import Tokenizer, normalizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(char.backend_tokenizer.to_str())
    backend.normalizer = normalizers.Lowercase()
    small = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert measure(small, ["Big", "small"]).restored == 0.5


def test_unknown_tokens_count_as_bytes():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    words = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    assert measure(words, ["a b a c"]).byte_share == 0.5


def test_no_text_is_refused(char):
    for texts in ([], [""]):
        with pytest.raises(DataError, match="no tokens to measure"):
            measure(char, texts)


def test_pieces_say_where_they_are(char):
    assert pieces(char, "aï") == [
        Piece(char.convert_tokens_to_ids("a"), "a", 0, 1),
        Piece(char.convert_tokens_to_ids("<0xC3>"), "<0xC3>", 1, 2),
        Piece(char.convert_tokens_to_ids("<0xAF>"), "<0xAF>", 1, 2),
    ]
    assert [piece.token for piece in pieces(char, "<|end|>")] == list("<|end|>")
