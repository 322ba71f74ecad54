"""Taggers: learned, resumed, scored, used; and what is refused before training starts."""

import json
import random

import pytest
import torch
from tiny_runs import MODEL, TEXT, TRAINING, Stop, weights_of
from typer.testing import CliRunner

from spikeloom.checkpoint import read_config
from spikeloom.cli import app
from spikeloom.config import parse_run
from spikeloom.data.cleaning.personal import redacted as cleaned
from spikeloom.errors import CheckpointError, ConfigError, DataError
from spikeloom.evaluation.checkpoint import load
from spikeloom.evaluation.tagging import TaggerFinder, evaluate, load_tagger
from spikeloom.training.tagging import train_tagger
from spikeloom.training.train import train

NAMES = ("Ann", "Bo", "Cy", "Dee")
PLACES = ("Rome", "Oslo", "Bonn")
SETTINGS = {
    "max_steps": 60,
    "batch_size": 8,
    "learning_rate": 2e-2,
    "checkpoint_every": 30,
    "context": 48,
}


def records(count, seed=0):
    """`X saw Y in Z .`, X and Y sometimes of two words."""
    choose = random.Random(seed)
    for _ in range(count):
        a, b, place = choose.choice(NAMES), choose.choice(NAMES), choose.choice(PLACES)
        yield {
            "tokens": [a, a, "saw", b, "in", place, "."],
            "tags": ["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC", "O"],
        }


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run_of(model=None, **training):
    model = {**MODEL, "bidirectional": True, **(model or {})}
    tree = {"model": model, "tokenizer": {"kind": "char", "vocab_size": 300}}
    return parse_run({**tree, "training": {**TRAINING, **SETTINGS, **training}})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    written(folder / "train.jsonl", records(64))
    written(folder / "dev.jsonl", records(12, seed=1))
    return str(folder)


@pytest.fixture(scope="module")
def tagger(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tagger"
    result = train_tagger(run_of(), data, out)
    assert result.metrics["eval_f1"] > 0.9
    assert "eval_bits_per_byte" not in result.metrics
    return out


def test_the_checkpoint_says_that_it_reads_both_ways(tagger):
    assert read_config(tagger).bidirectional
    saved = json.loads((tagger / "config.json").read_text())
    assert saved["architectures"] == ["SpikeloomForTokenClassification"]
    assert list(saved["id2label"].values()) == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert json.loads((tagger / "run.json").read_text())["task"] == "ner"


def test_scores_on_held_out_records(tagger, data):
    report = evaluate(load_tagger(tagger), data)
    assert report["f1"] > 0.9
    assert report["records"] == 12
    assert report["per_type"]["LOC"]["entities"] == 12
    assert 0 < report["active_share"] < 1
    again = evaluate(load_tagger(tagger), data, batch_size=5)
    for figure in ("precision", "recall", "f1", "active_share"):
        assert again[figure] == pytest.approx(report[figure]), figure


def test_characters_are_found_and_replaced(tagger):
    text = " Ann Ann saw Bo\nin Rome ."
    spans = load_tagger(tagger).tag([text, "", "Cy"])[0].spans
    assert {text[s.start : s.end]: s.label for s in spans}["Rome"] == "LOC"
    assert cleaned(text, TaggerFinder(tagger))[0].endswith("in [LOC] .")


def test_the_verbs(tagger, data, tmp_path):
    def call(*words):
        found = CliRunner().invoke(app, [str(word) for word in words])
        assert found.exit_code == 0, found.output
        return found.output

    text = "Ann Ann saw Bo in Rome ."
    assert "[LOC]" in call("tag", tagger, text, "--redact", "--json", tmp_path / "tag.json")
    report = json.loads((tmp_path / "tag.json").read_text())
    for span in report["spans"]:
        assert text[span["start"] : span["end"]] == span["text"]
    call("eval", tagger, "--task", "ner", "--data", data, "--json", tmp_path / "eval.json")
    assert {"precision", "recall", "f1", "per_type"} <= json.loads(
        (tmp_path / "eval.json").read_text()
    ).keys()


def test_an_interrupted_run_goes_on_to_the_same_weights(tagger, data, tmp_path):
    run = run_of(max_steps=60)
    with pytest.MonkeyPatch.context() as patch:
        Stop(patch, after_batches=40)
        with pytest.raises(KeyboardInterrupt):
            train_tagger(run, data, tmp_path / "run")
    train_tagger(run, data, tmp_path / "run", resume=True)
    whole, resumed = weights_of(tagger), weights_of(tmp_path / "run")
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, msg=name)
    other = written(tmp_path / "x.jsonl", [{"tokens": ["a"], "tags": ["B-X"]}] * 20)
    with pytest.raises(ConfigError, match=r"trained with labels .*choose another"):
        train_tagger(run, other, tmp_path / "run", eval_data=other, resume=True)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    (folder / "text.txt").write_text(TEXT)
    tree = {"model": MODEL, "tokenizer": {"kind": "char", "vocab_size": 300}, "training": TRAINING}
    return train(parse_run(tree), str(folder / "text.txt"), folder / "run").directory


def test_a_spiking_tagger_starts_on_a_dense_language_model(data, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    model = {**MODEL, "spiking": False}
    tree = {"model": model, "tokenizer": {"kind": "char", "vocab_size": 300}, "training": TRAINING}
    dense = train(parse_run(tree), str(tmp_path / "text.txt"), tmp_path / "dense").directory
    train_tagger(run_of(max_steps=1, learning_rate=1e-9), data, tmp_path / "run", start=dense)
    before, after = weights_of(dense), weights_of(tmp_path / "run")
    assert any("neuron.bias" in name for name in after.keys() - before.keys())
    name = "model.decoder.layers.0.blocks.0.mixer.q_proj.weight"
    torch.testing.assert_close(after[name], before[name])


def test_a_tagger_starts_on_a_language_model(language_model, data, tmp_path):
    run = run_of(max_steps=1, learning_rate=1e-9)
    train_tagger(run, data, tmp_path / "run", start=language_model)
    before, after = weights_of(language_model), weights_of(tmp_path / "run")
    name = "model.decoder.layers.0.blocks.0.mixer.q_proj.weight"
    torch.testing.assert_close(after[name], before[name])
    wider = run_of(max_steps=1, model={"hidden_size": 64})
    with pytest.raises(ConfigError, match=r"--from .* has model.hidden_size=32, the config 64"):
        train_tagger(wider, data, tmp_path / "other", start=language_model)


def test_verbs_for_other_heads_refuse_a_tagger(tagger, language_model):
    with pytest.raises(CheckpointError, match="holds a tagger, not a language model: it is for"):
        load(tagger)
    with pytest.raises(CheckpointError, match="holds a language model, not a tagger"):
        load_tagger(language_model)


def test_what_cannot_be_learned_is_refused(data, tmp_path):
    few = written(tmp_path / "few.jsonl", records(4))
    with pytest.raises(DataError, match="rows are less than a batch"):
        train_tagger(run_of(), few, tmp_path / "a", eval_data=few)
    other = written(tmp_path / "other.jsonl", [{"tokens": ["a"], "tags": ["B-ORG"]}])
    with pytest.raises(DataError, match=r"record 0, spans\[0\].label: 'ORG' is unknown"):
        train_tagger(run_of(), data, tmp_path / "b", eval_data=other)
    for options, why in [
        (["--bidirectional"], "need --task ner"),
        (["--task", "nerr"], "--task: 'nerr' is unknown"),
        (["--task", "ner", "--backend", "numpy"], "no heads for --task"),
    ]:
        words = ["train", "spikeloom-1m", "--data", data, "--out", str(tmp_path / "c")]
        error = CliRunner().invoke(app, [*words, *options]).exception
        assert isinstance(error, ConfigError)
        assert why in str(error)
