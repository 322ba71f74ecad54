"""`spikeloom tokenizer …`: from a text to a directory, a comparison and a picture of the cuts."""

import json
from functools import partial

import pytest
from transformers import AutoTokenizer

from spikeloom import tokenizers

TEXT = "The important weather of Alice’s museum.\nWonderful weather, important water!\n"


@pytest.fixture
def spikeloom(spikeloom, monkeypatch):
    """`spikeloom tokenizer` with arguments."""
    monkeypatch.setenv("COLUMNS", "120")
    return partial(spikeloom, "tokenizer")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """`text.txt`, and one tokenizer of each kind."""
    home = tmp_path_factory.mktemp("home")
    (home / "text.txt").write_text(TEXT, "utf-8")
    for kind in ("bpe", "char", "syllable"):
        tokenizers.train(kind, [TEXT], 300).save_pretrained(home / kind)
    return home


@pytest.mark.parametrize("kind", ["bpe", "char", "syllable"])
def test_train(kind, home, tmp_path, spikeloom):
    arguments = ["--kind", kind, "--vocab-size", 300, "--data", home / "text.txt"]
    arguments += ["--out", tmp_path / "new", "--json", tmp_path / "report.json"]
    code, out, _ = spikeloom("train", *arguments)
    assert code == 0
    assert f"{kind}, {len(tokenizers.load(home / kind))} tokens" in out
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    loaded = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert tokenizers.fingerprint(loaded) == report["fingerprint"]
    assert report["fingerprint"] == tokenizers.fingerprint(tokenizers.load(home / kind))
    code, _, err = spikeloom("train", *arguments)
    assert code == 2
    assert "holds a tokenizer already" in err


def test_train_on_one_side_of_the_text(home, tmp_path, spikeloom):
    arguments = ["train", "--kind", "char", "--data", home / "text.txt", "--out", tmp_path / "new"]
    assert spikeloom(*arguments, "--part", "eval")[0] == 0
    assert "’" not in tokenizers.load(tmp_path / "new").get_vocab()
    assert "’" in tokenizers.load(home / "char").get_vocab()


def test_compare(home, tmp_path, spikeloom):
    kinds = [home / "bpe", home / "char", home / "syllable"]
    arguments = ["--data", home / "text.txt", "--json", tmp_path / "rows.json"]
    code, out, _ = spikeloom("compare", *kinds, *arguments)
    assert code == 0
    assert "1 documents, 0.00 MB" in out
    report = json.loads((tmp_path / "rows.json").read_text("utf-8"))
    assert report["bytes"] == len(TEXT.encode())
    rows = {row["directory"]: row for row in report["rows"]}
    assert list(rows) == [str(kind) for kind in kinds]
    assert rows[str(home / "char")]["characters_per_token"] == 1
    assert rows[str(home / "syllable")]["characters_per_token"] > 1.2
    assert all(row["restored"] == 1 for row in rows.values())


def test_compare_reads_no_more_than_asked(tmp_path, home, spikeloom):
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("four words are here", "utf-8")
    arguments = ["compare", home / "char", "--data", tmp_path, "--max-bytes", 30]
    assert "2 documents" in spikeloom(*arguments)[1]


def test_show(home, tmp_path, spikeloom):
    code, out, _ = spikeloom("show", home / "syllable", "[b]Alice\n", "--json", tmp_path / "x.json")
    assert code == 0
    assert "[b]" in out  # text, not markup
    assert r"\n" in out
    report = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert [token["token"] for token in report["tokens"]][:3] == ["[", "b", "]"]
    assert {"token": "⇧", "start": 3, "end": 4}.items() <= report["tokens"][3].items()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--kind", "sylable"], "tokenizer kind 'sylable' is unknown (did you mean 'syl"),
        (["train", "--kind", "syllable", "--vocab-size", 287], "needs at least 288"),
        (["train", "--part", "valid"], "part 'valid' is unknown: use all, train, eval"),
        (["compare", "missing"], "missing is not a directory"),
        (["show", "missing", "text"], "missing is not a directory"),
    ],
)
def test_mistakes_are_one_line(arguments, message, home, tmp_path, spikeloom):
    if arguments[0] != "show":
        arguments = [*arguments, "--data", home / "text.txt"]
    if arguments[0] == "train":
        arguments = [*arguments, "--out", tmp_path / "new"]
    code, _, err = spikeloom(*arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
