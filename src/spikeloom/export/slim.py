"""A trained checkpoint made to be shipped: half-precision weights, and no training state."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from spikeloom.checkpoint import read_run, resolve
from spikeloom.errors import CheckpointError
from spikeloom.evaluation.checkpoint import load_any
from spikeloom.tokenizers.special import END

_PLACES = ("data", "eval_data", "from")  # keys of run.json that name files of this machine


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
    disable_progress_bar()  # of the weight files
    model.to(torch.bfloat16).save_pretrained(out)
    words.save_pretrained(out)
    _keep_record(path, out)
    for file in out.iterdir():
        if file.is_file():
            file.chmod(0o644)  # safetensors writes for its owner alone; a package is for all
    return {
        "directory": str(out),
        "parameters": sum(p.numel() for p in model.parameters()),
        "weight_bytes": (out / "model.safetensors").stat().st_size,
    }


def _keep_record(path: Path, out: Path) -> None:
    """How it was trained, for the card, `chat` and `train`; of places only the names."""
    if run := read_run(path):
        for key in _PLACES:
            if isinstance(run.get(key), str):
                run[key] = ",".join(Path(part).name for part in run[key].split(","))
        (out / "run.json").write_text(json.dumps(run, indent=2), encoding="utf-8")
    done = next((f for f in (path, path.parent) if (f / "training.json").is_file()), None)
    if done is not None:
        shutil.copyfile(done / "training.json", out / "training.json")
