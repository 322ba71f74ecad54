"""Weights in 4 or 8 bits: `python -m spikeloom.backends.mlx.quantize CKPT OUT --bits 4`.

Every product and the embedding are quantised (`mx.quantize`: groups of a row share scale and bias);
neurons, norms and decays stay as they are. OUT is read by this backend and by mlx-lm, not by
PyTorch and NumPy.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from mlx import nn

from spikeloom.backends.mlx import checkpoint
from spikeloom.backends.mlx.decoder import Model
from spikeloom.checkpoint import resolve
from spikeloom.errors import CheckpointError, ConfigError, SpikeloomError

GROUP_SIZES, BITS = (32, 64, 128), (4, 8)
WEIGHTS = ("config.json", "model.safetensors")


def quantize(model: Model, bits: int = 4, group_size: int = 64) -> dict[str, int]:
    """Quantise a model in place; returns `{group_size, bits}`, as the checkpoint keeps it.

    Raises:
        ConfigError: no such precision, or a row does not divide into whole groups.
    """
    for name, value, known in (("bits", bits, BITS), ("group-size", group_size, GROUP_SIZES)):
        if value not in known:
            raise ConfigError(f"--{name} {value}: expected one of {', '.join(map(str, known))}")
    c = model.config
    for name, width in vars(c).items():
        if name in ("hidden_size", "intermediate_size") and width % group_size:
            raise ConfigError(
                f"model.{name}={width} does not divide into groups of {group_size}: "
                f"{_smaller(width)}"
            )
    nn.quantize(model, group_size=group_size, bits=bits)
    return {"group_size": group_size, "bits": bits}


def quantize_checkpoint(
    source: str | Path, out: Path, bits: int = 4, group_size: int = 64
) -> tuple[int, int]:
    """Write a quantised copy of a checkpoint directory; returns bytes before and after.

    Raises:
        CheckpointError: source is not a checkpoint, is quantised already, or out is not empty.
        ConfigError: see `quantize`.
    """
    path = resolve(source)
    if checkpoint.quantization(path) is not None:
        raise CheckpointError(f"{path} is quantised already: give the checkpoint it came from")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is not an empty directory: give a new one")
    model = checkpoint.load(path)
    before = nbytes(model)
    how = quantize(model, bits, group_size)
    out.mkdir(parents=True, exist_ok=True)
    for file in path.iterdir():
        if file.is_file() and file.suffix == ".json" and file.name not in WEIGHTS:
            shutil.copy(file, out)  # the tokenizer
    checkpoint.save(out, model, how)
    return before, nbytes(model)


def nbytes(model: Model) -> int:
    """Memory of all weights, in bytes."""
    return sum(w.nbytes for w in checkpoint.weights_of(model).values())


def _smaller(width: int) -> str:
    able = [str(size) for size in GROUP_SIZES if width % size == 0]
    return f"use --group-size {' or '.join(able)}" if able else "no group size divides it"


def main() -> None:
    """Entry point of `python -m spikeloom.backends.mlx.quantize`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", metavar="CKPT", help="a checkpoint directory")
    parser.add_argument("out", metavar="OUT", type=Path, help="directory to write")
    parser.add_argument("--bits", type=int, default=4, help="4 or 8")
    parser.add_argument("--group-size", type=int, default=64, help="32, 64 or 128")
    given = parser.parse_args()
    try:
        sizes = quantize_checkpoint(given.checkpoint, given.out, given.bits, given.group_size)
    except SpikeloomError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{given.out}: {sizes[0] / 1e6:.2f} MB to {sizes[1] / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
