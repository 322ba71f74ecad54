"""What the tests of the MLX backend share."""

import pytest
import torch

from spikeloom import tokenizers
from spikeloom.config import parse_run
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM
from spikeloom.neurons import ContextGain

TEXT = "The cat sat on the mat, über alles.\n"


@pytest.fixture(autouse=True)
def no_compiler(request):
    """On Linux `mx.compile` calls g++ for every new kernel: only tests that ask `compiled` do."""
    mx = pytest.importorskip("mlx.core", reason="needs `pip install 'spikeloom[mlx]'`")
    if "compiled" not in request.fixturenames:
        mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.fixture
def compiled():
    """This test compiles."""


@pytest.fixture
def make_run(tmp_path):
    """Writes a checkpoint directory of PyTorch, tokenizer and all, for a mixer;
    gains, if any, do something."""

    def make(mixer, **neuron):
        torch.manual_seed(0)
        words = tokenizers.train("bpe", [TEXT * 20], 290)
        tree = {
            "vocab_size": tokenizers.size(words),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
            "layers": [{"mixer": mixer, "mlp": "relu2"}],
            "neurons": {"default": {"beta": 0.5, "levels": 8, "fire_level": 2, **neuron}},
        }
        config = SpikeloomConfig.from_architecture(parse_run({"model": tree}).model)
        model = SpikeloomForCausalLM(config)
        for gain in (m for m in model.modules() if isinstance(m, ContextGain)):
            torch.nn.init.normal_(gain.widen)
        model.save_pretrained(tmp_path / "run")
        words.save_pretrained(tmp_path / "run")
        return tmp_path / "run"

    return make
