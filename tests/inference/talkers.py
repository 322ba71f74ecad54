"""A small model with a character tokenizer, to generate and to talk with."""

import torch

from spikeloom import tokenizers
from spikeloom.config import parse_run
from spikeloom.inference.engine import Engine
from spikeloom.inference.generate import Generator
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM
from spikeloom.neurons import ContextGain

TEXT = "The cat sat on the mat, über alles.\n"


def talker(attention=True, kind="char", **neuron):
    """A model of either mixer, and a generator around it; gains, if any, that do something."""
    torch.manual_seed(0)
    words = tokenizers.train(kind, [TEXT * 20], 290)
    tree = {
        "vocab_size": tokenizers.size(words),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "layers": [{"mixer": "attention" if attention else "sdsa", "mlp": "relu2"}],
        "neurons": {"default": {"beta": 0.5, "levels": 8, "fire_level": 2, **neuron}},
    }
    config = SpikeloomConfig.from_architecture(parse_run({"model": tree}).model)
    model = SpikeloomForCausalLM(config).eval()
    for gain in (m for m in model.modules() if isinstance(m, ContextGain)):
        torch.nn.init.normal_(gain.widen)
    return model, Generator(Engine.from_model(model), words)
