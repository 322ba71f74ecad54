"""Does what a neuron hears stay? `python research/persistence.py TEXT.jsonl [CHECKPOINT]`.

If it did from token to token, a neuron could send what has changed instead of what is there
(sigma-delta coding: O'Connor and Welling 2016), and silence would mean "as before". For every
neuron without a membrane, means over its channels: how many fire, how much of what they hear (mean
square) is a constant of the channel, and how much the best multiple of what the channel heard one
token before leaves unexplained. Without CHECKPOINT, of the model that comes with the package.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import spikeloom
from spikeloom.data.readers import read
from spikeloom.evaluation.checkpoint import load
from spikeloom.model.products import neurons
from spikeloom.neurons import Neuron

ROWS, LENGTH = 24, 128


def heard(model: nn.Module, tokens: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """By neuron: what flows into it and what it emits, each `[B, L, D]`, in order."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str, neuron: Neuron) -> None:
        def after(module: nn.Module, args: tuple, kwargs: dict, output: tuple) -> None:
            before = kwargs.get("before", args[3] if len(args) > 3 else None)
            found[name] = neuron.current(args[0], before), output[0]

        neuron.register_forward_hook(after, with_kwargs=True)

    for name, neuron in neurons(model).items():
        if isinstance(neuron, Neuron) and not neuron.remembers:
            note(name, neuron)
    with torch.inference_mode():
        model(tokens)
    return found


def persistence(x: Tensor) -> tuple[float, float]:
    """Of currents `[B, L, D]`, means over channels: the share that is constant, and the share that
    the token before leaves unexplained."""

    def energy(y: Tensor) -> Tensor:
        return y.square().mean((0, 1)).clamp(min=1e-12)

    before, after = x[:, :-1], x[:, 1:]
    best = (before * after).mean((0, 1)) / energy(before)
    left = energy(after - best * before) / energy(after)
    return float((x.mean((0, 1)).square() / energy(x)).mean()), float(left.mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=spikeloom.pretrained_path())
    given = parser.parse_args()
    model, words = load(given.checkpoint)
    rows: list[list[int]] = []
    for text in read(given.text):
        ids = words(text).input_ids[:LENGTH]
        rows += [ids] if len(ids) == LENGTH else []
        if len(rows) == ROWS:
            break
    if not rows:
        sys.exit(f"error: {given.text} has no text of {LENGTH} tokens: give longer ones")
    print("| neuron | fires | constant | unexplained by the token before |\n|---|---|---|---|")
    for name, (x, emission) in heard(model, torch.tensor(rows)).items():
        constant, left = persistence(x)
        fires = float((emission != 0).float().mean())
        short = name.removeprefix("model.decoder.")
        print(f"| {short} | {fires:.2f} | {constant:.2f} | {left:.2f} |")


if __name__ == "__main__":
    main()
