"""The config of a tiny run, and what to look at when it is over."""

import json
import random
from pathlib import Path

from safetensors.torch import load_file

from spikeloom.config import parse_run
from spikeloom.training.train import train
from spikeloom.training.trainer import SpikeTrainer

SENTENCE = "the cat sat on a mat and saw one red bird fly over green hills while it rained"
_random = random.Random(0)
TEXT = "".join(" ".join(_random.choices(SENTENCE.split(), k=7)) + ".\n" for _ in range(13))

MODEL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 16,
    "layers": [{"mixer": "sdsa", "mlp": "spiking"}, {"mixer": "attention", "mlp": "relu2"}],
}
TRAINING = {
    "max_steps": 4,
    "batch_size": 4,
    "learning_rate": 5e-3,
    "checkpoint_every": 2,
    "log_every": 1,
    "eval_tokens": 64,
    "sample_every": 0,
    "dtype": "float32",
}


def run_of(**training):
    """The config of a tiny run; `model={…}` changes the model's part."""
    model = {**MODEL, **training.pop("model", {})}
    tree = {"model": model, "tokenizer": {"kind": "char", "vocab_size": 300}}
    return parse_run({**tree, "training": {**TRAINING, **training}})


def state_of(directory):
    return json.loads((Path(directory) / "trainer_state.json").read_text())


def losses_of(directory):
    """Step to logged loss, training and held out."""
    return {
        (name, entry["step"]): entry[name]
        for entry in state_of(directory)["log_history"]
        for name in ("loss", "eval_loss")
        if name in entry
    }


def weights_of(directory):
    return load_file(Path(directory) / "model.safetensors")


class Stop:
    """Interrupts training when the given number of batches has been read."""

    def __init__(self, patch, after_batches, error=KeyboardInterrupt):
        self.left, self.error, self.step = after_batches, error, SpikeTrainer.training_step
        patch.setattr(SpikeTrainer, "training_step", lambda *args: self(*args))

    def __call__(self, *args):
        if self.left == 0:
            raise self.error("stopped by the test")
        self.left -= 1
        return self.step(*args)


def interrupted(patch, run, text, out, after_batches, **kwargs):
    """Train until so many batches were read, then as if Ctrl-C was pressed."""
    with patch.context() as inner:
        Stop(inner, after_batches)
        try:
            train(run, text, out, **kwargs)
        except KeyboardInterrupt:
            return
    raise AssertionError("the run ended before it was interrupted")
