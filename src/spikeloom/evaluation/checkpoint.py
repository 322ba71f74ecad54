"""A checkpoint directory to a model and its tokenizer, or one line that says what is wrong.

Everything is checked before a weight is read: the config, the header of the safetensors files
(names, shapes, whole or truncated), and whether the tokenizer fits. Nothing is unpickled, no code
of the directory is run, no network is asked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from spikeloom import tokenizers
from spikeloom.errors import CheckpointError, ConfigError
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM

Shapes = dict[str, tuple[int, ...]]

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def load(
    directory: str | Path, dtype: torch.dtype | None = None, device: str = "cpu"
) -> tuple[SpikeloomForCausalLM, PreTrainedTokenizerFast]:
    """Read a checkpoint directory.

    Args:
        directory: with `config.json`, `model.safetensors` and tokenizer files; or the output of an
            interrupted run, whose newest whole `checkpoint-N` is taken then (said on stderr).
        dtype: of the weights; as saved by default.
        device: where they go.

    Returns:
        the model in evaluation mode, and its tokenizer.

    Raises:
        CheckpointError: the directory is missing, not ours, truncated, or does not fit together.
    """
    path = resolve(directory)
    config = read_config(path)
    _check_weights(path, config)
    tokenizer = load_tokenizer(path, config)
    with _silent():
        model = SpikeloomForCausalLM.from_pretrained(
            path, dtype=dtype or "auto", local_files_only=True, use_safetensors=True
        )
    return model.to(device).eval(), tokenizer  # type: ignore[arg-type]


def resolve(directory: str | Path) -> Path:
    """The directory that holds the weights: this one, or its newest whole `checkpoint-N`."""
    path = Path(directory)
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a directory: give a checkpoint directory")
    if _has_weights(path):
        return path
    steps = [p for p in path.glob("checkpoint-*") if p.name.partition("-")[2].isdigit()]
    for candidate in sorted(steps, key=lambda p: int(p.name.partition("-")[2]), reverse=True):
        if _is_whole(candidate):
            print(f"{path} holds an unfinished run: using {candidate.name}", file=sys.stderr)
            return candidate
    if not (path / "config.json").exists():
        raise CheckpointError(f"{path} is not a checkpoint: it has no config.json")
    raise CheckpointError(f"{path} is not a whole checkpoint: it has no {_WEIGHTS}")


def read_config(path: Path) -> SpikeloomConfig:
    """`config.json` as our config."""
    file = path / "config.json"
    try:
        tree = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is not a checkpoint: it has no config.json") from None
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"{file} is not readable as JSON ({exc})") from None
    kind = tree.get("model_type") if isinstance(tree, dict) else None
    if kind != SpikeloomConfig.model_type:
        raise CheckpointError(f"{path} holds a model of type {kind!r}, not a spikeloom checkpoint")
    try:
        return SpikeloomConfig.from_dict(tree)
    except ConfigError as exc:
        raise CheckpointError(f"{file}: {exc}") from None


def load_tokenizer(path: Path, config: SpikeloomConfig) -> PreTrainedTokenizerFast:
    """The tokenizer beside the weights, if every id it makes has an embedding."""
    with _silent():
        tokenizer = tokenizers.load(path)
    size = max(tokenizer.get_vocab().values(), default=-1) + 1
    if size > config.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {size} tokens, the model only {config.vocab_size}: "
            "they are not from the same run"
        )
    return tokenizer


def _has_weights(path: Path) -> bool:
    return (path / _WEIGHTS).exists() or (path / _INDEX).exists()


def _is_whole(path: Path) -> bool:
    try:
        _check_weights(path, read_config(path))
    except CheckpointError:
        return False
    return True


def _check_weights(path: Path, config: SpikeloomConfig) -> None:
    """Compare names and shapes in the files with those that the config asks for."""
    found: Shapes = {}
    for file in _weight_files(path):
        found |= _shapes(file)
    with torch.device("meta"):
        model = SpikeloomForCausalLM(config)
    wanted: Shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}  # ties: once
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        raise CheckpointError(f"{path}: {len(missing)} weights are missing, as {missing[0]}")
    tied = set() if not config.tie_word_embeddings else {"lm_head.weight"}
    foreign = sorted(found.keys() - wanted.keys() - tied)
    if foreign:
        raise CheckpointError(f"{path}: {len(foreign)} weights are foreign, as {foreign[0]}")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise CheckpointError(
                f"{path}: {name} has shape {found[name]}, config.json asks for {shape}"
            )


def _weight_files(path: Path) -> list[Path]:
    if not (path / _INDEX).exists():
        if not (path / _WEIGHTS).exists():
            raise CheckpointError(f"{path} is not a whole checkpoint: it has no {_WEIGHTS}")
        return [path / _WEIGHTS]
    try:
        index: dict[str, Any] = json.loads((path / _INDEX).read_text("utf-8"))
        return [path / name for name in sorted(set(index["weight_map"].values()))]
    except (OSError, ValueError, KeyError, AttributeError) as exc:
        raise CheckpointError(f"{path / _INDEX} is not a readable index ({exc})") from None


def _shapes(file: Path) -> Shapes:
    """Names and shapes in the header of a safetensors file; opening checks its length too."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return {n: tuple(tensors.get_slice(n).get_shape()) for n in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(f"{file} is truncated or not a safetensors file ({exc})") from None


@contextmanager
def _silent() -> Iterator[None]:
    """No progress bars, no advice: what matters is raised."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
