"""Runs that start on the weights of a checkpoint: `spikeloom train --from`."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_runs import interrupted, losses_of, run_of, weights_of

from spikeloom import backends
from spikeloom.checkpoint import read_config
from spikeloom.config import load_config
from spikeloom.errors import CheckpointError, ConfigError
from spikeloom.evaluation.checkpoint import load
from spikeloom.training.train import train


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory):
    return train(run_of(max_steps=40), text, tmp_path_factory.mktemp("first") / "run").directory


def frozen():
    """A run whose weights hardly move, so that they show where it began."""
    return run_of(max_steps=2, learning_rate=1e-12, weight_decay=0.0)


def test_it_begins_with_the_weights_and_the_tokenizer(trained, text, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("zebras 0123 quiz\n" * 30)  # its own tokenizer would have other letters
    out = train(frozen(), str(other), tmp_path / "run", start=trained).directory
    before, after = weights_of(trained), weights_of(out)
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, atol=1e-6, rtol=0)
    assert (out / "tokenizer.json").read_text() == (trained / "tokenizer.json").read_text()
    assert json.loads((out / "run.json").read_text())["from"] == str(trained)


def test_it_goes_on_where_the_other_ended(trained, text, tmp_path):
    out = train(run_of(max_steps=2), text, tmp_path / "run", start=trained).directory
    fresh = train(run_of(max_steps=2), text, tmp_path / "fresh").directory
    assert losses_of(out)["loss", 1] < losses_of(fresh)["loss", 1] - 0.5


def test_weights_of_another_dtype_are_taken_too(trained, text, tmp_path):
    model, words = load(trained, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "half")
    words.save_pretrained(tmp_path / "half")
    out = train(frozen(), text, tmp_path / "run", start=tmp_path / "half").directory
    after = weights_of(out)["model.decoder.embed_tokens.weight"]
    assert after.dtype == torch.float32
    rounded = weights_of(trained)["model.decoder.embed_tokens.weight"].bfloat16().float()
    torch.testing.assert_close(after, rounded, atol=1e-6, rtol=0)


def test_a_resumed_run_remembers_where_it_began(trained, text, tmp_path, monkeypatch):
    run, out = frozen(), tmp_path / "run"
    interrupted(monkeypatch, run, text, out, 1, start=trained)  # before anything was saved
    train(run, text, out, resume=True)
    name = "model.decoder.embed_tokens.weight"
    torch.testing.assert_close(weights_of(out)[name], weights_of(trained)[name], atol=1e-6, rtol=0)


def test_the_run_is_a_preset_too(trained):
    again, run = load_config(str(trained), ["training.max_steps=7"]), run_of(max_steps=7)
    assert again.training == replace(run.training, context=16)
    assert again.model == read_config(trained)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 64}, "model.hidden_size=32, the config 64"),
        ({"neurons": {"head": {"theta": 0.5}}}, r"model.neurons.head.theta=\S+, the config 0.5"),
        (
            {"layers": [{"mixer": "sdsa"}] * 2},
            "model.layers.1.mixer='attention', the config 'sdsa'",
        ),
    ],
    ids=str,
)
def test_another_architecture_is_refused_by_its_first_difference(
    changes, message, trained, text, tmp_path
):
    with pytest.raises(ConfigError, match=message) as refused:
        train(run_of(model=changes), text, tmp_path / "run", start=trained)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("mixer", ["attention", "recurrent_lif"])
def test_a_dense_model_becomes_a_spiking_one(mixer, text, tmp_path):
    layers = {"layers": [{"mixer": mixer, "mlp": "relu2"}], "norm": "layer"}
    if mixer == "recurrent_lif":
        layers["neurons"] = {
            "default": {"kind": "lif"},
            "mixer_output": {"learn_beta": True, "beta": 0.9},
        }
    plain = run_of(max_steps=2, model=layers | {"spiking": False})
    dense = train(plain, text, tmp_path / "dense").directory
    spiking = replace(frozen(), model=run_of(model=layers).model)
    out = train(spiking, text, tmp_path / "run", start=dense).directory
    before, after = weights_of(dense), weights_of(out)
    assert any("neuron.bias" in name for name in after.keys() - before.keys())
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, atol=1e-6, rtol=0)


def test_a_spiking_model_does_not_become_a_dense_one(trained, text, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.spiking=True"):
        train(run_of(model={"spiking": False}), text, tmp_path / "run", start=trained)


def test_a_longer_context_is_not_another_architecture(trained, text, tmp_path):
    run = run_of(max_steps=2, model={"max_position_embeddings": 24})
    assert train(run, text, tmp_path / "run", start=trained).metrics["steps"] == 2


def test_what_does_not_go_together(trained, text, tmp_path):
    with pytest.raises(ConfigError, match="--tokenizer: --from brings"):
        train(run_of(), text, tmp_path / "run", start=trained, tokenizer=str(trained))
    with pytest.raises(CheckpointError, match="is not a directory"):
        train(run_of(), text, tmp_path / "run", start=tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"--from: the numpy backend cannot run it, use .*torch"):
        backends.train("numpy", run_of(), text, tmp_path / "run", start=trained)
