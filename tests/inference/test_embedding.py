"""Vectors of texts and tokens: shapes, padding-free means, neighbours, and the verb."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from spikeloom import tokenizers
from spikeloom.cli import app
from spikeloom.errors import ConfigError, DataError
from spikeloom.inference.embedding import Embedder, Embedding, nearest
from spikeloom.model import (
    SpikeloomConfig,
    SpikeloomForCausalLM,
    SpikeloomForSequenceClassification,
)

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 16,
}


@pytest.fixture(scope="module")
def letters():
    return tokenizers.train("char", ["ocean sea"], 300)


def model_of(letters, head=SpikeloomForCausalLM, **changes):
    torch.manual_seed(0)
    size = tokenizers.size(letters)
    return head(SpikeloomConfig(**{**SIZES, **changes}, vocab_size=size)).eval()


@pytest.fixture(scope="module")
def embedder(letters):
    return Embedder(model_of(letters), letters)


def test_a_token_has_a_vector_of_unit_size_and_a_text_their_mean(embedder):
    tokens = embedder.embed(["sea"], "token")
    assert [each.text for each in tokens] == ["s", "e", "a"]
    vectors = np.stack([each.vector for each in tokens])
    assert vectors.shape == (3, 32)
    np.testing.assert_allclose((vectors**2).mean(1), 1.0, rtol=1e-5)
    (whole,) = embedder.embed(["sea"])
    np.testing.assert_allclose(whole.vector, vectors.mean(0), rtol=1e-5)


def test_it_is_the_residual_before_the_head(letters, embedder):
    model = model_of(letters)
    ids = torch.tensor([[letters.bos_token_id, *letters.encode("sea", add_special_tokens=False)]])
    read = []
    decoder = model.model.decoder
    decoder.head_neuron.register_forward_pre_hook(lambda module, given: read.append(given[0]))
    with torch.no_grad():
        model(ids)
    (x,) = read
    x = x[0, 1:] / x[0, 1:].square().mean(-1, keepdim=True).sqrt()
    (whole,) = embedder.embed(["sea"])
    np.testing.assert_allclose(whole.vector, x.mean(0).numpy(), rtol=1e-4, atol=1e-6)


def test_long_texts_heads_and_the_step_clock(letters):
    embedder = Embedder(model_of(letters), letters)
    assert len(embedder.embed(["sea " * 20], "token")) == 80
    stepped = model_of(letters, SpikeloomForSequenceClassification, num_steps=3)
    (found,) = Embedder(stepped, letters).embed(["sea"])
    last = Embedder(stepped, letters).embed(["sea"], "token")[-1]
    np.testing.assert_array_equal(found.vector, last.vector)  # a causal classifier reads the last


def test_neighbours():
    points = {"east": (1, 0), "north": (0, 1), "north-east": (1, 1), "far east": (9, 1)}
    others = [Embedding(name, np.array(at, np.float32)) for name, at in points.items()]
    found = nearest(np.array([1, 0], np.float32), [*others, others[0]], 3)
    assert [name for name, _ in found] == ["east", "far east", "north-east"]
    assert found[2][1] == pytest.approx(0.5**0.5)


def test_what_is_refused(embedder):
    with pytest.raises(DataError, match="text 1: '' is empty"):
        embedder.embed(["a", ""])
    with pytest.raises(ConfigError, match="--level word: expected token or sentence"):
        embedder.embed(["a"], "word")


def test_the_verb(letters, tmp_path):
    model_of(letters).save_pretrained(tmp_path / "run")
    letters.save_pretrained(tmp_path / "run")
    (tmp_path / "words.txt").write_text("ocean\n\nsea\n")
    words = ["embed", tmp_path / "run", "--file", tmp_path / "words.txt", "--nearest", "sea"]
    more = ["--out", tmp_path / "v.npy", "--json", tmp_path / "v.json"]
    found = CliRunner().invoke(app, [str(each) for each in [*words, *more]])
    assert found.exit_code == 0, found.output
    report = json.loads((tmp_path / "v.json").read_text())
    assert report["nearest"][0] == {"text": "sea", "cosine": pytest.approx(1.0)}
    vectors = np.load(tmp_path / "v.npy", allow_pickle=False)
    np.testing.assert_allclose(vectors, report["vectors"], rtol=1e-5)
    for bad in ([], ["--text", "a", "--file", "x"], ["--text", "a", "--out", "x.txt"]):
        error = CliRunner().invoke(app, ["embed", str(tmp_path / "run"), *bad]).exception
        assert isinstance(error, ConfigError)
