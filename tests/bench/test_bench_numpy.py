"""The loop that the NumPy backend is timed against computes the same; a wrong one is noticed."""

import numpy as np
import pytest

from spikeloom.backends.numpy.decoder import Decoder
from spikeloom.backends.weights import initial_weights
from spikeloom.bench import load, numpy
from spikeloom.bench.numpy import TokenLoop, check
from spikeloom.bench.options import Options
from spikeloom.config import load_config
from spikeloom.errors import ConfigError

SIZES = ("hidden_size=32", "num_hidden_layers=2", "num_attention_heads=2", "intermediate_size=48")


@pytest.fixture
def small():
    config = load_config("spike-transformer", [f"model.{size}" for size in SIZES]).model
    return Decoder(config, initial_weights(config))


def test_both_compute_the_same(small):
    check(small, TokenLoop(small.config, small.w), np.arange(40, 49))


def test_both_compute_the_same_where_tokens_are_silent(small, monkeypatch):
    for name, bias in small.w.items():
        if name.endswith("neuron.bias"):
            bias -= 0.6  # some rows, not all
    silent, norm = [], TokenLoop.norm

    def watched(loop, x, name):
        silent.append(not x.any(-1).all())
        return norm(loop, x, name)

    monkeypatch.setattr(TokenLoop, "norm", watched)
    check(small, TokenLoop(small.config, small.w), np.arange(40, 72))
    assert any(silent)


def test_a_loop_that_computes_something_else_is_not_timed(small, monkeypatch):
    right = TokenLoop.norm_back
    monkeypatch.setattr(TokenLoop, "norm_back", lambda *given: 1.001 * right(*given))
    with pytest.raises(AssertionError, match="relative error"):
        check(small, TokenLoop(small.config, small.w), np.arange(40, 49))


def test_one_row_per_run(monkeypatch):
    preset = load_config
    monkeypatch.setattr(
        numpy, "load_config", lambda name: preset(name, [f"model.{size}" for size in SIZES])
    )
    monkeypatch.setattr(numpy, "CONTEXT", 8)
    (row,) = load("numpy")("cpu", Options())
    assert row.target == 20
    assert row.ours > 0
    assert row.peer > 0


def test_it_is_refused_on_a_gpu():
    with pytest.raises(ConfigError, match="--device cpu"):
        next(iter(load("numpy")("cuda", Options())))
