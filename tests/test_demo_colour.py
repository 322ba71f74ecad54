"""The colour demo: it learns by heart, is scored on words held out, and refuses what is no list."""

import json

import pytest
from typer.testing import CliRunner

from spikeloom import demo_colour
from spikeloom.cli import app
from spikeloom.errors import ConfigError, DataError
from spikeloom.evaluation.checkpoint import load
from spikeloom.model import SpikeloomForSequenceClassification

# The last letter says it all.
WORDS = [(f"{a}{b}{end}", colour) for a in "abcdef" for b in "ghij" for end, colour in
         (("x", "red"), ("y", "blue"))]  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    sizes = ("hidden_size=32", "intermediate_size=32", "num_hidden_layers=1")
    heads = ("model.num_attention_heads=4", "training.learning_rate=1e-2")
    monkeypatch.setattr(demo_colour, "GEOMETRY", [f"model.{size}" for size in sizes] + [*heads])
    monkeypatch.setattr(demo_colour, "BATCH", 8)


def test_it_learns_and_is_scored_on_words_held_out(small, tmp_path):
    data = tmp_path / "words.jsonl"
    data.write_text("".join(json.dumps({"word": w, "colour": c}) + "\n" for w, c in WORDS))
    words = [
        "demo-colour",
        "--data",
        data,
        "--out",
        tmp_path / "run",
        "--json",
        tmp_path / "r.json",
    ]
    more = ["--epochs", 7, "--folds", 2, "--json", tmp_path / "r.json"]
    found = CliRunner().invoke(app, [str(each) for each in [*words, *more]])
    assert found.exit_code == 0, found.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["training_accuracy"] > 0.9
    assert report["held_out_accuracy"] > 0.8
    assert report["seconds_to_seed_accuracy"] is not None
    assert "2-fold cross-validation" in found.output
    model, _ = load(tmp_path / "run", head=SpikeloomForSequenceClassification)
    assert model.config.id2label[0] == "black"


def test_what_is_refused(tmp_path):
    data = tmp_path / "words.jsonl"
    data.write_text('{"word": "sky", "colour": "mauve"}\n')
    with pytest.raises(DataError, match="line 1: 'sky', 'mauve': expected a word and one of"):
        demo_colour.run_demo(tmp_path / "a", data, "spike-transformer", 1, 0, 0)
    data.write_text('{"word": "sky", "colour": "blue"}\n')
    with pytest.raises(ConfigError, match="--folds 10: expected 0, or 2 to 1"):
        demo_colour.run_demo(tmp_path / "a", data, "spike-transformer", 1, 10, 0)
