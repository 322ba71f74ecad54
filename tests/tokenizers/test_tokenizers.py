import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from spikeloom import tokenizers
from spikeloom.errors import CheckpointError, ConfigError, DataError
from spikeloom.tokenizers import sample as sample_module
from spikeloom.tokenizers.special import SPECIAL_TOKENS

TEXT = [
    "Once upon a time, a fox met 365 owls.\n",
    "“Où es-tu ?” Где ты? 你好 🦉 🦉\n",
    "a  b\tc\r\n",
]
SMALLEST = {"bpe": 261, "char": 261, "syllable": 288}
KINDS = tuple(SMALLEST)


@pytest.fixture(scope="module")
def trained():
    return {kind: tokenizers.train(kind, TEXT * 5, 400) for kind in KINDS}


# Whatever a tokenizer of ours gives a meaning to: marks, spaces, bytes, special tokens, lines.
TRAPS = [
    "⇧",
    "\x1a",
    " ",
    "  ",
    "\t",
    "\r\n",
    "\n",
    "\0",
    "<|end|>",
    "<0xE2>",
    "12",
    "3",
    "'S",
    "'ll",
]
TRAPS += [
    "A",
    "b",
    "The",
    "the",
    "NASA",
    "McKay",
    "é",
    "É",
    "e\u0301",
    "ß",
    "İ",
    "你",
    "🦉",
    "\ufffd",
]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=300)
@given(text=st.one_of(st.text(), st.lists(st.sampled_from(TRAPS)).map("".join)))
@example(text="  <|endoftext|> n't . , <|end|> ")
@example(text="<0x41><0xE2> 🏴‍☠️ e\u0301 \0 \r\n \u2028 \ufeff \U0010ffff")
@example(text=" The ⇧ ⇧the ⇧The\x1a ⇧\x1athe McDonald NASA's ABc  Ab\n Ab É İı ⇧")
def test_any_text_comes_back(trained, kind, text):
    tokenizer = trained[kind]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert ids == tokenizers.literal(tokenizer).encode(text).ids
    assert not set(ids) & set(tokenizer.all_special_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_have_fixed_ids(trained, kind):
    tokenizer = trained[kind]
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    assert tokenizer("<|user|><|endoftext|>")["input_ids"] == [2, 0]
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == 0
    assert tokenizer.pad_token_id == 1
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_is_the_same(trained, kind, tmp_path):
    trained[kind].save_pretrained(tmp_path)
    for loaded in (tokenizers.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert tokenizers.fingerprint(loaded) == tokenizers.fingerprint(trained[kind])
        assert loaded(TEXT)["input_ids"] == trained[kind](TEXT)["input_ids"]
        assert set(loaded("x")) == {"input_ids", "attention_mask"}
        assert loaded.chat_template == trained[kind].chat_template
        assert loaded.all_special_ids == [0, 1, 2, 3, 4]
        assert loaded.clean_up_tokenization_spaces is False


def test_loading_is_not_disturbed_by_a_model_beside_it(trained, tmp_path, caplog):
    trained["bpe"].save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))
    assert tokenizers.load(tmp_path).bos_token_id == 0
    assert not caplog.records


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_deterministic_and_stays_within_its_size(kind):
    size = SMALLEST[kind] + 9
    one, two = (tokenizers.train(kind, iter(TEXT * 5), size) for _ in range(2))
    assert tokenizers.fingerprint(one) == tokenizers.fingerprint(two)
    assert len(one) == size
    assert tokenizers.fingerprint(one) != tokenizers.fingerprint(
        tokenizers.train(kind, TEXT * 5, size - 1)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_little_text_makes_a_smaller_vocabulary(kind):
    words = tokenizers.train(kind, ["hello hello é é"], 10_000)
    assert SMALLEST[kind] <= len(words) < SMALLEST[kind] + 9


def test_char_prefers_frequent_characters():
    tokenizer = tokenizers.train("char", ["ab éé ø 你你你"], 263)
    assert tokenizer.tokenize("你éab") == ["你", "é", "a", "b"]
    assert tokenizer.tokenize("ø") == ["<0xC3>", "<0xB8>"]


def test_bpe_learns_words_and_splits_numbers():
    tokenizer = tokenizers.train("bpe", ["the weather 1234 1234 "] * 100, 400)
    assert len(tokenizer(" weather")["input_ids"]) == 1
    assert len(tokenizer("1234")["input_ids"]) == 2


@pytest.mark.parametrize("kind", ["bpe", "syllable"])
def test_learning_from_a_capped_sample(kind, monkeypatch):
    monkeypatch.setattr(sample_module, "SAMPLE_BYTES", 100)
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield "a text of 19 bytes."

    tokenizers.train(kind, endless(), 300)
    assert len(taken) == 6


def test_bad_requests_are_one_line():
    with pytest.raises(ConfigError, match=r"'bpee' is unknown \(did you mean 'bpe'\?\)"):
        tokenizers.train("bpee", TEXT, 400)
    for kind in KINDS:
        least = SMALLEST[kind]
        with pytest.raises(ConfigError, match=f"{least - 1} is too small: {kind} .* {least} "):
            tokenizers.train(kind, TEXT, least - 1)
        assert len(tokenizers.train(kind, TEXT, least)) == least
        with pytest.raises(DataError, match="no text to train"):
            tokenizers.train(kind, [], 400)


def test_an_error_of_the_source_is_not_swallowed():
    def source():
        yield "text"
        raise DataError("a.txt is broken")

    for kind in KINDS:
        with pytest.raises(DataError, match=r"a\.txt is broken"):
            tokenizers.train(kind, source(), 400)


def test_missing_and_broken_directories_are_refused(trained, tmp_path):
    with pytest.raises(CheckpointError, match="is not a directory"):
        tokenizers.load(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="no readable tokenizer"):
        tokenizers.load(tmp_path)
    trained["bpe"].save_pretrained(tmp_path)
    for content in ("{broken", "{}", ""):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(CheckpointError, match="no readable tokenizer") as caught:
            tokenizers.load(tmp_path)
        assert "\n" not in str(caught.value)


def test_the_chat_format(trained):
    tokenizer: PreTrainedTokenizerFast = trained["bpe"]
    chat = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": " Hi "},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye"},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|user|>Be kind.\n\n Hi <|end|><|assistant|>Hello!<|end|><|user|>Bye<|end|><|assistant|>"
    )


def test_the_loss_can_be_put_on_what_the_assistant_says(trained):
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo 🦉"}]
    tokenizer = trained["bpe"]
    out = tokenizer.apply_chat_template(chat, return_assistant_tokens_mask=True, return_dict=True)
    said = [i for i, mark in zip(out["input_ids"], out["assistant_masks"], strict=True) if mark]
    assert tokenizer.decode(said) == "Yo 🦉<|end|>"
