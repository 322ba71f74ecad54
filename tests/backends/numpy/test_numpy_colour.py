"""The colour demo: it learns, says how well, and refuses what is no list of words."""

import json
import sys

import numpy as np
import pytest

from spikeloom.backends.numpy import colour
from spikeloom.backends.numpy.layers import IGNORED
from spikeloom.backends.words import COLOURS, encode, read_pairs, xkcd_pairs
from spikeloom.errors import DataError

WORDS = [("sky", "blue"), ("sea", "blue"), ("grass", "green"), ("snow", "white"), ("coal", "black")]


def write(path, *lines):
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_it_learns_words_by_heart(tmp_path, monkeypatch, capsys):
    lines = [json.dumps({"word": word, "colour": name}) for word, name in WORDS]
    data = write(tmp_path / "words.jsonl", *lines)
    monkeypatch.setattr(sys, "argv", ["colour", "--data", str(data), "--epochs", "60"])
    colour.main()
    assert capsys.readouterr().out.splitlines()[-1] == "training accuracy 100.0%"


def test_words_of_like_length_share_a_batch_and_the_last_letter_is_asked():
    batches, vocabulary = encode(WORDS, 2)
    assert vocabulary == 9 + len({letter for word, _ in WORDS for letter in word})
    assert [tokens.shape for tokens, _ in batches] == [(2, 3), (2, 4), (1, 5)]
    for tokens, targets in batches:
        last = (tokens != 8).sum(1) - 1
        assert (targets != IGNORED).sum() == len(tokens)
        assert (targets[np.arange(len(tokens)), last] < len(COLOURS)).all()


def test_xkcd_names_have_the_colour_that_they_name():
    pairs = dict(xkcd_pairs())
    assert len(pairs) == 949
    assert set(pairs.values()) == set(COLOURS)
    assert pairs["greenish blue"] == "blue"
    assert pairs["blue/green"] == "green"
    assert pairs["crimson"] == "red"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"word": "sky"}', "line 2: expected"),
        ("sky blue", "line 2: expected"),
        ('{"word": "sky", "colour": "azure"}', "expected a word and one of black, blue"),
        ('{"word": "", "colour": "blue"}', "line 2: ''"),
    ],
)
def test_a_line_that_is_no_word_and_colour_is_refused(line, says, tmp_path):
    data = write(tmp_path / "words.jsonl", '{"word": "sky", "colour": "blue"}', line)
    with pytest.raises(DataError, match=says):
        read_pairs(data)


def test_no_epochs_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["colour", "--epochs", "0"])
    with pytest.raises(SystemExit) as left:
        colour.main()
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: --epochs 0: expected at least 1\n"


def test_a_missing_or_empty_file_ends_with_one_line_and_code_2(tmp_path, monkeypatch, capsys):
    for data in (tmp_path / "nowhere.jsonl", write(tmp_path / "empty.jsonl")):
        monkeypatch.setattr(sys, "argv", ["colour", "--data", str(data)])
        with pytest.raises(SystemExit) as left:
            colour.main()
        assert left.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
