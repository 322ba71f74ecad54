import json

import pytest
import torch
from tiny_models import CONFIGS, build_model

from spikeloom.errors import ConfigError, DataError
from spikeloom.evaluation import pictures
from spikeloom.evaluation.profile import profile

PNG = b"\x89PNG"


def model_with_a_dead_channel(**changes):
    model = build_model(vocab_size=261, **changes)
    neuron = model.model.decoder.layers[1].blocks[1].mlp.hidden_neuron
    with torch.no_grad():
        neuron.bias[3] = -1e6  # unsigned: never fires
        neuron.bias[5] = 1e6  # always at the largest payload
    return model


def test_profile_writes_pictures_and_finds_dead_and_saturated_channels(tokenizer, tmp_path):
    report = profile(model_with_a_dead_channel(), tokenizer, "The cat sat.", tmp_path / "p")
    assert report["tokens"] == 13
    entry = next(e for e in report["per_layer"] if (e["layer"], e["role"]) == (1, "mlp_hidden"))
    assert 3 in entry["dead_channels"]
    assert 5 in entry["saturated_channels"]
    assert entry["dead"] == len(entry["dead_channels"])
    assert entry["largest"] == 8
    folder = tmp_path / "p"
    assert json.loads((folder / "profile.json").read_text()) == report
    for name in ("raster", "rates", "operations"):
        assert (folder / f"{name}.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("name", ["step clock, lif", "dense", "half dense"])
def test_profile_of_other_kinds(name, tokenizer, tmp_path):
    model = build_model(vocab_size=261, **CONFIGS[name])
    report = profile(model, tokenizer, "A $ign_ of\ttime", tmp_path)
    assert (tmp_path / "operations.png").exists()
    assert (tmp_path / "raster.png").exists() == (name != "dense")
    assert len(report["products"]) == 13


def test_neurons_by_name(tokenizer, tmp_path):
    model = build_model(vocab_size=261)
    profile(model, tokenizer, "The cat", tmp_path, neurons=["0.mlp_hidden", "head"])
    with pytest.raises(ConfigError, match=r"did you mean '0.mlp_hidden'"):
        profile(model, tokenizer, "The cat", tmp_path, neurons=["0.mlp_hiden"])


def test_empty_text_is_refused(tokenizer, tmp_path):
    with pytest.raises(DataError, match="too short"):
        profile(build_model(vocab_size=261), tokenizer, "", tmp_path)


def test_loss_curves(tmp_path):
    history = [{"step": 10, "loss": 5.0}, {"step": 20, "loss": 4.0}, {"step": 20, "eval_loss": 4.2}]
    pictures.loss_curves({"spiking": history, "unevaluated": history[:2]}, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(PNG)
