"""A tiny tokenizer and checkpoints; models come from `tiny_models`."""

import pytest
from tiny_models import DOCUMENTS, build_model

from spikeloom import tokenizers
from spikeloom.model import dense_twin
from spikeloom.model.huggingface import SpikeloomConfig


@pytest.fixture(scope="session")
def tokenizer():
    return tokenizers.train("char", DOCUMENTS, 261)  # é and à take two tokens


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder of the documents as a source, with a cache of its own."""
    monkeypatch.setenv("SPIKELOOM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "text"
    folder.mkdir()
    for i, text in enumerate(DOCUMENTS):
        (folder / f"{i}.txt").write_text(text, "utf-8")
    return str(folder)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory, tokenizer):
    """Directories `spiking` and `dense`."""
    root = tmp_path_factory.mktemp("checkpoints")
    spiking = build_model(vocab_size=261, max_position_embeddings=32)
    twin = dense_twin(spiking.config.architecture)
    assert isinstance(spiking.config, SpikeloomConfig)
    for name, model in {"spiking": spiking, "dense": build_model(twin)}.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {name: root / name for name in ("spiking", "dense")}
