"""`spikeloom train --from CKPT`: a new run that starts on trained weights.

Weights and tokenizer are the checkpoint's; optimizer, schedule and budget are new. The architecture
has to be the one that the config asks for, or that without its neurons: then the neurons are new,
and a dense model becomes a spiking one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from spikeloom.checkpoint import read_config, require_head, resolve
from spikeloom.config import RunConfig
from spikeloom.errors import ConfigError
from spikeloom.evaluation.checkpoint import load
from spikeloom.model import SpikeloomForCausalLM, neurons, products
from spikeloom.strict import to_dict
from spikeloom.training.run_directory import RUN_FILE

FROM_TOKENIZER = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
# Positions are angles: a model reads shorter and longer rows than it was trained on.
FREE = (*FROM_TOKENIZER, "max_position_embeddings")


def require_same_architecture(start: Path, run: RunConfig, free: tuple[str, ...] = FREE) -> None:
    """Refuse a checkpoint of another shape than the config asks for, with its neurons or without.

    Args:
        start: a checkpoint directory.
        run: the new run.
        free: keys of `model` that may differ.

    Raises:
        ConfigError: names the first key that differs, and both values.
    """
    model = read_config(start)
    wanted = run.model if model.spiking else replace(run.model, spiking=False)
    has, asked = to_dict(model), to_dict(wanted)
    for key in asked.keys() & set(free):
        has[key] = asked[key]
    if (found := _first_difference(has, asked, "model")) is not None:
        key, its, ours = found
        raise ConfigError(
            f"--from {start} has {key}={its!r}, the config {ours!r}: use the preset and --set that "
            "it was trained with, or give the run's directory in place of the preset"
        )


def require_language_model(start: str | Path, run: RunConfig, tokenizer: str | None) -> Path:
    """The directory to start on, once it is known to fit.

    Raises:
        CheckpointError: it is not a checkpoint, or one with another head.
        ConfigError: its architecture is another one, or a second tokenizer was given.
    """
    path = resolve(start)
    require_head(path, SpikeloomForCausalLM.__name__)
    if tokenizer is not None:
        raise ConfigError("--tokenizer: --from brings the tokenizer that its weights were made for")
    require_same_architecture(path, run)
    return path


def recorded_start(out: Path) -> str | None:
    """The checkpoint that the run in a directory started on; None if it began from scratch."""
    if not (out / RUN_FILE).exists():
        return None
    start: str | None = json.loads((out / RUN_FILE).read_text("utf-8")).get("from")
    return start


def take_weights(model: nn.Module, start: Path) -> None:
    """Copy all weights of a language model, whatever their dtype, into one of the same shape.

    Neurons of a spiking model that starts on a dense one stay as they are.

    Raises:
        CheckpointError: the checkpoint is damaged, or lacks weights.
    """
    trained, _ = load(start)
    new = {} if trained.config.architecture.spiking else neuron_parameters(model)
    model.load_state_dict({**new, **trained.state_dict()})


def neuron_parameters(model: nn.Module) -> dict[str, Tensor]:
    """What belongs to neurons among the parameters and buffers of a model, by name."""
    owned = {
        f"{name}.{key}": value
        for name, neuron in neurons(model).items()
        for key, value in neuron.state_dict().items()
    }
    products_within = {f"{p.name}.weight" for p in products(model)}
    return {name: value for name, value in owned.items() if name not in products_within}


def _first_difference(has: Any, asked: Any, path: str) -> tuple[str, Any, Any] | None:
    """Where two trees differ first, in the order of the config, and both values there."""
    if isinstance(has, dict) and isinstance(asked, dict) and has.keys() == asked.keys():
        pairs = ((f"{path}.{key}", has[key], asked[key]) for key in asked)
    elif isinstance(has, list) and isinstance(asked, list) and len(has) == len(asked):
        pairs = ((f"{path}.{i}", *both) for i, both in enumerate(zip(has, asked, strict=True)))
    else:
        return None if has == asked else (path, has, asked)
    return next((found for p, a, b in pairs if (found := _first_difference(a, b, p))), None)
