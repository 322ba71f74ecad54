"""Word -> colour in a minute: `python -m spikeloom.backends.numpy.colour [--data words.jsonl]`.

The seed's toy task and geometry: a word goes in letter by letter, and behind the last one the model
names a colour. 2 layers of spike-driven attention, 4 heads, width 64, binary LIF over 4 steps.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

if __name__ == "__main__":  # before NumPy: products this small lose time to a second thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from spikeloom.backends.numpy.decoder import Decoder, loss_and_gradients
from spikeloom.backends.numpy.layers import IGNORED
from spikeloom.backends.numpy.training import Optimizer, clip
from spikeloom.backends.weights import Array, initial_weights
from spikeloom.backends.words import COLOURS, Pairs, encode, read_pairs, xkcd_pairs
from spikeloom.config import load_config
from spikeloom.errors import ConfigError, SpikeloomError
from spikeloom.training.memory import keep_freed_memory

GEOMETRY = [
    *("model.hidden_size=64", "model.num_hidden_layers=2", "model.num_attention_heads=4"),
    *("model.intermediate_size=256", "training.learning_rate=3e-3", "training.weight_decay=0"),
]


def accuracy(decoder: Decoder, batches: list[tuple[Array, Array]]) -> float:
    """Share of words whose likeliest colour is the right one."""
    right = []
    for tokens, targets in batches:
        named = decoder.forward(tokens).logits[..., : len(COLOURS)].argmax(-1)
        right.append((named == targets)[targets != IGNORED])
    return float(np.concatenate(right).mean())


def learn(pairs: Pairs, epochs: int, seed: int = 0) -> float:
    """Train, print the progress, and return the accuracy on the words trained on."""
    batches, vocabulary = encode(pairs, size=32)
    run = load_config("spike-transformer", [*GEOMETRY, f"model.vocab_size={vocabulary}"])
    decoder = Decoder(run.model, initial_weights(run.model, seed))
    optimizer = Optimizer(decoder.w, run.training)
    rng, began = np.random.default_rng(seed), time.time()
    for epoch in range(epochs):
        factor, losses = 0.5 * (1 + math.cos(math.pi * epoch / epochs)), []
        for n in rng.permutation(len(batches)):
            loss, share, grads = loss_and_gradients(decoder, *batches[n])
            clip(grads, run.training.clip)
            optimizer.step(grads, factor)
            losses.append(loss)
        if epoch % 10 == 9 or epoch == epochs - 1:
            right, seconds = accuracy(decoder, batches), time.time() - began
            print(
                f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, {right:.1%} of {len(pairs)} words "
                f"right, active share {share:.2f}, {seconds:.0f} s",
                flush=True,
            )
    return right


def main() -> None:
    """The command line; a user's mistake is one line and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="jsonl of word and colour; else xkcd's names")
    parser.add_argument("--epochs", type=int, default=50)
    given = parser.parse_args()
    try:
        if given.epochs < 1:
            raise ConfigError(f"--epochs {given.epochs}: expected at least 1")
        pairs = read_pairs(given.data) if given.data else xkcd_pairs()
    except SpikeloomError as error:
        parser.exit(2, f"error: {error}\n")
    keep_freed_memory()
    print(f"training accuracy {learn(pairs, given.epochs):.1%}")


if __name__ == "__main__":
    main()
