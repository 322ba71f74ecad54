"""A trained checkpoint made to be shipped: half-precision weights, and no training state."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from spikeloom.checkpoint import read_run, resolve
from spikeloom.errors import CheckpointError
from spikeloom.evaluation.checkpoint import load_any
from spikeloom.tokenizers.special import END

KEPT = ("run.json", "training.json")  # how it was trained: for the card, `chat` and `train`


def slim(directory: str | Path, out: str | Path) -> dict[str, Any]:
    """Write config, bfloat16 weights, tokenizer and the record of the run.

    Every engine computes in float32 from such files: only the weights are rounded.

    Args:
        directory: a checkpoint directory.
        out: where the files go; other files there stay.

    Returns:
        `directory`, `parameters`, `weight_bytes`.

    Raises:
        CheckpointError: there is no whole checkpoint, or `out` already holds one.
    """
    path, out = resolve(directory), Path(out)
    if (out / "model.safetensors").exists():
        raise CheckpointError(f"{out} already holds a model: choose another directory")
    model, words = load_any(path)
    generation = getattr(model, "generation_config", None)
    if generation is not None and read_run(path).get("training", {}).get("chat"):
        generation.eos_token_id = [words.eos_token_id, words.convert_tokens_to_ids(END)]
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(out)
    words.save_pretrained(out)
    for name in KEPT:
        source = next((f / name for f in (path, path.parent) if (f / name).is_file()), None)
        if source is not None:
            shutil.copyfile(source, out / name)
    return {
        "directory": str(out),
        "parameters": sum(p.numel() for p in model.parameters()),
        "weight_bytes": (out / "model.safetensors").stat().st_size,
    }
