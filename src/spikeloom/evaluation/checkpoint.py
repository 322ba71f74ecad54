"""A checkpoint directory to a model and its tokenizer, or one line that says what is wrong.

Everything is checked before a weight is read: the config, the header of the safetensors files
(names, shapes, whole or truncated), and whether the tokenizer fits. Nothing is unpickled, no code
of the directory is run, no network is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from spikeloom import tokenizers
from spikeloom.checkpoint import read_config, read_json, read_shapes, require_head, resolve
from spikeloom.config import ModelConfig
from spikeloom.errors import CheckpointError
from spikeloom.model import (
    SpikeloomConfig,
    SpikeloomForCausalLM,
    SpikeloomForSequenceClassification,
    SpikeloomForTokenClassification,
)


def load(
    directory: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    head: Any = SpikeloomForCausalLM,
) -> tuple[Any, PreTrainedTokenizerFast]:
    """Read a checkpoint directory.

    Args:
        directory: with `config.json`, `model.safetensors` and tokenizer files; or the output of an
            interrupted run, whose newest whole `checkpoint-N` is taken then (said on stderr).
        dtype: of the weights, whatever they were saved in (bfloat16 halves a file, no more).
        device: where they go.
        head: class of the model: with a head for text, or one of `spikeloom.model.heads`.

    Returns:
        the model in evaluation mode, and its tokenizer.

    Raises:
        CheckpointError: the directory is missing, not ours, truncated, or does not fit together.
    """
    path = resolve(directory)
    config = read_config(path)
    require_head(path, head.__name__)
    _check_weights(path, config, head)
    with _silent():
        tokenizer = tokenizers.load(path, config.vocab_size)
        model = head.from_pretrained(path, dtype=dtype, local_files_only=True, use_safetensors=True)
    return model.to(device).eval(), tokenizer


def load_any(directory: str | Path, device: str = "cpu") -> tuple[Any, PreTrainedTokenizerFast]:
    """`load`, with whichever head the checkpoint has."""
    saved = (read_json(resolve(directory)).get("architectures") or ["SpikeloomForCausalLM"])[0]
    heads = (SpikeloomForTokenClassification, SpikeloomForSequenceClassification)
    head = next((each for each in heads if each.__name__ == saved), SpikeloomForCausalLM)
    return load(directory, device=device, head=head)


def _check_weights(path: Path, config: ModelConfig, head: Any) -> None:
    """Compare names and shapes in the files with those that the config asks for."""
    found = read_shapes(path)
    with torch.device("meta"):
        model = head(_with_classes(SpikeloomConfig.from_architecture(config), path))
    names = {id(tensor): name for name, tensor in model.named_parameters()}  # ties: once
    saved = model.state_dict(keep_vars=True)
    wanted = {names.get(id(t), name): tuple(t.shape) for name, t in saved.items()}
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


def _with_classes(config: SpikeloomConfig, path: Path) -> SpikeloomConfig:
    """The config with the classes of a head, if there are any."""
    classes = read_json(path).get("id2label")
    if isinstance(classes, dict):
        config.id2label = dict(enumerate(classes.values()))
    return config


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
