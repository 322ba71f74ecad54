"""A tiny model in the place of the shipped one, for tests of whatever comes without weights."""

import json

import torch

from spikeloom import tokenizers
from spikeloom.config import parse_run
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM
from spikeloom.strict import to_dict

TEXT = "Once upon a time, a dog named Max sat on the mat. Tell me a story about it.\n"


def make_checkpoint(folder, chat=True):
    """A trained run's directory, as far as the weights, at random, allow."""
    torch.manual_seed(0)
    words = tokenizers.train("char", [TEXT * 20], 300)
    model = {
        "vocab_size": tokenizers.size(words),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "layers": [{"mixer": "attention", "mlp": "relu2"}, {"mixer": "sdsa", "mlp": "spiking"}],
        "neurons": {"default": {"levels": 8, "fire_level": 2}},
    }
    run = parse_run({"model": model, "training": {"chat": chat, "max_steps": 3, "context": 64}})
    SpikeloomForCausalLM(SpikeloomConfig.from_architecture(run.model)).save_pretrained(folder)
    words.save_pretrained(folder)
    record = {**to_dict(run), "data": "/home/me/stories.jsonl,hub:me/tales"}
    (folder / "run.json").write_text(json.dumps(record))
    done = {"steps": 3, "tokens": 6144, "seconds": 1.5}
    (folder / "training.json").write_text(json.dumps(done))
    (folder / "optimizer.pt").write_bytes(b"not to be shipped")
    return folder
