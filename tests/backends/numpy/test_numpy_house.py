"""What the NumPy backend is: light, short, and on the same checkpoint directory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import NAMES, small_model, tokens_of, weights_of
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from spikeloom.backends import numpy as package
from spikeloom.backends.numpy.decoder import Decoder
from spikeloom.backends.weights import initial_weights, layout, read, write
from spikeloom.errors import CheckpointError

FOLDER = Path(package.__file__).parent
HEAVY = ("torch", "transformers", "pydantic", "tokenizers", "matplotlib", "rich", "numba")


def test_it_needs_numpy_and_safetensors_only():
    modules = [f"spikeloom.backends.numpy.{path.stem}" for path in FOLDER.glob("[a-z]*.py")]
    assert len(modules) >= 6
    code = f"import sys, {', '.join(modules)}\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_it_can_be_read_in_one_sitting():
    lines = sum(len(path.read_text("utf-8").splitlines()) for path in FOLDER.rglob("*.py"))
    assert lines <= 1000


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_go_both_ways(name, tmp_path):
    model = small_model(name, torch.float32).eval()
    model.save_pretrained(tmp_path / "torch")
    config, weights = read(tmp_path / "torch")
    assert config == model.config.architecture
    for key, expected in weights_of(model).items():
        np.testing.assert_array_equal(weights[key], expected)
    (tmp_path / "numpy").mkdir()
    write(tmp_path / "numpy", config, weights)
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "numpy")
    assert back.config.architecture == config
    assert back.dtype == torch.float32
    tokens = tokens_of(model, 1, 6)
    with torch.no_grad():
        logits = back(torch.from_numpy(tokens)).logits
        assert torch.equal(logits, model(torch.from_numpy(tokens)).logits)
    ours = Decoder(config, weights).forward(tokens).logits
    np.testing.assert_allclose(ours, logits.numpy(), atol=1e-4)


def test_a_new_model_is_read_as_it_was_written(tmp_path):
    config = small_model("hadamard").config.architecture
    weights = initial_weights(config, seed=3)
    write(tmp_path, config, weights)
    config_back, weights_back = read(tmp_path)
    assert config_back == config
    assert weights_back.keys() == layout(config).keys()
    for key, weight in weights.items():
        np.testing.assert_array_equal(weights_back[key], weight)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("model.decoder.norm.weight"), "model.decoder.norm.weight is missing"),
        (lambda w: w.update(foreign=np.zeros(3, np.float32)), "foreign is (3,)"),
        (
            lambda w: w.update({"model.decoder.norm.weight": np.ones(5, np.float32)}),
            r"model.decoder.norm.weight is (5,), config.json asks for (48,)",
        ),
    ],
    ids=["missing", "foreign", "shape"],
)
def test_weights_that_do_not_fit_are_refused(change, says, tmp_path):
    config = small_model("spikeloom-1m").config.architecture
    weights = initial_weights(config)
    change(weights)
    write(tmp_path, config, weights)
    with pytest.raises(CheckpointError) as error:
        read(tmp_path)
    assert says in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_weights_are_float32_at_least(dtype, tmp_path):
    model = small_model("spikeloom-1m", dtype)
    model.save_pretrained(tmp_path)
    _, weights = read(tmp_path)
    for key, parameter in model.named_parameters():
        assert weights[key].dtype == (np.float64 if dtype == torch.float64 else np.float32)
        np.testing.assert_array_equal(weights[key], parameter.detach().numpy())


def test_bfloat16_which_numpy_lacks_is_widened(tmp_path):
    model = small_model("spikeloom-1m", torch.bfloat16)
    model.save_pretrained(tmp_path)
    _, weights = read(tmp_path)
    for key, parameter in model.named_parameters():
        assert weights[key].dtype == np.float32
        np.testing.assert_array_equal(weights[key], parameter.detach().float().numpy())


def test_tied_heads_that_are_saved_twice_are_read(tmp_path):
    model = small_model("spikeloom-1m", torch.float32)
    model.save_pretrained(tmp_path)
    twice = {k: v.contiguous().clone() for k, v in model.state_dict().items()}
    assert "lm_head.weight" in twice
    save_file(twice, tmp_path / "model.safetensors")
    assert "lm_head.weight" not in read(tmp_path)[1]


def test_the_config_says_what_it_is(tmp_path):
    config = small_model("spikeloom-1m").config.architecture
    write(tmp_path, config, initial_weights(config))
    tree = json.loads((tmp_path / "config.json").read_text())
    assert tree["model_type"] == "spikeloom"
    assert tree["dtype"] == "float32"
