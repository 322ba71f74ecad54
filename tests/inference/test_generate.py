"""Text in, text out: the same tokens as the engine and as `generate`, whole characters only."""

import random

import pytest
import torch
from talkers import TEXT, talker

from spikeloom import tokenizers
from spikeloom.errors import CheckpointError, ConfigError
from spikeloom.inference.generate import Generator, Sampling, Spelling

GREEDY = Sampling(temperature=0.0, max_new_tokens=24)


@pytest.fixture(scope="module", params=[True, False], ids=["attention", "sdsa"])
def pair(request):
    return talker(request.param)


def test_greedy_is_what_transformers_generates(pair):
    model, generator = pair
    ids = [generator.tokenizer.bos_token_id, *generator.encode("The cat")]
    with torch.no_grad():
        output = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=24,
            do_sample=False,
        )
    text = "".join(generator.stream("The cat", GREEDY))
    assert generator.given == output[0, len(ids) :].tolist()
    whole = generator.tokenizer.decode(generator.given, skip_special_tokens=True)
    assert text.rstrip("\ufffd") == whole.rstrip("\ufffd")  # a character may be unfinished


def test_the_seed_decides(pair):
    _, generator = pair

    def text(seed):
        return "".join(generator.stream("The", Sampling(seed=seed, max_new_tokens=20)))

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(4)}) == 4


def test_text_is_never_taken_for_a_special_token(pair):
    _, generator = pair
    special = set(generator.tokenizer.all_special_ids)
    assert not special & set(generator.encode("a <|endoftext|> b"))


def test_a_state_is_continued(pair):
    _, generator = pair
    whole = generator.engine.new_state()
    ids = [generator.tokenizer.bos_token_id, *generator.encode("The cat sat")]
    list(generator.stream(ids, GREEDY, whole))
    expected = generator.given
    state = generator.engine.new_state()
    generator.engine.prefill(ids[:4], state)
    list(generator.stream(ids[4:], GREEDY, state))
    assert generator.given == expected
    assert state.position == whole.position


def test_it_ends_with_a_stop(pair):
    _, generator = pair
    list(generator.stream("The cat", GREEDY))
    first = generator.given[0]
    list(generator.stream("The cat", GREEDY, stops=[first]))
    assert generator.given == [first]


def test_statistics(pair):
    _, generator = pair
    list(generator.stream("The cat", GREEDY, stops=()))
    figures = generator.statistics()
    assert figures["tokens"] == 24
    assert figures["seconds"] > 0
    assert 0 < figures["active_share"] < 1


@pytest.mark.parametrize("kind", ["char", "bpe", "syllable"])
def test_pieces_are_whole_characters(kind):
    words = tokenizers.train(kind, [TEXT * 20], 290)
    backend = tokenizers.literal(words)
    text = "The Größe of 𝄞 日本 <|endoftext|> é… 👩‍🚀 end"
    spelling = Spelling(words)
    pieces = [spelling.add(token) for token in backend.encode(text, add_special_tokens=False).ids]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("kind", ["char", "bpe", "syllable"])
def test_any_tokens_can_be_spelt(kind):
    # a model that has learned little says bytes that are no UTF-8
    words = tokenizers.train(kind, [TEXT * 20], 290)
    chance = random.Random(0)
    for _ in range(50):
        ids = [chance.randrange(tokenizers.size(words)) for _ in range(40)]
        spelling = Spelling(words)
        pieces = [spelling.add(token) for token in ids]
        whole = words.backend_tokenizer.decode(ids, skip_special_tokens=True)
        if kind == "bpe":  # characters are spelt byte by byte, and one bad byte spoils its like
            assert whole.startswith("".join(pieces))
            assert len(whole) - len("".join(pieces)) <= 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature -1.0: expected 0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"temperature": float("inf")}, "temperature inf"),
        ({"top_p": 0.0}, "top_p 0.0: expected a probability"),
        ({"top_p": 1.1}, "top_p 1.1"),
        ({"top_p": float("nan")}, "top_p nan"),
        ({"max_new_tokens": 0}, "max_new_tokens 0: expected at least 1"),
    ],
)
def test_impossible_sampling(options, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**options)


def test_a_directory_is_enough(tmp_path, capsys):
    model, generator = talker()
    run = tmp_path / "run" / "checkpoint-7"
    model.save_pretrained(run)
    generator.tokenizer.save_pretrained(run)
    capsys.readouterr()
    expected = "".join(generator.stream("The", GREEDY))
    assert "".join(Generator.load(run).stream("The", GREEDY)) == expected
    assert "".join(Generator.load(run.parent).stream("The", GREEDY)) == expected
    assert capsys.readouterr().err.count("\n") == 1  # it says which checkpoint it took
    tokenizers.train("char", ["ÄÖÜß" * 9 + TEXT + "ÀÈÌÒÙ"], 400).save_pretrained(run)
    with pytest.raises(CheckpointError, match="not from the same run"):
        Generator.load(run)
