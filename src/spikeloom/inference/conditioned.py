"""Generation under metadata: `spikeloom generate --category history`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spikeloom.checkpoint import read_run
from spikeloom.data.conditioning import Prefixes
from spikeloom.errors import ConfigError, did_you_mean
from spikeloom.inference.generate import Generator


def conditioned_prompt(
    generator: Generator, directory: str | Path, prompt: str, given: Mapping[str, str | None]
) -> str | list[int]:
    """A prompt with metadata before it, spelt as in training; the prompt itself if none is given.

    Args:
        generator: of the model.
        directory: its checkpoint, or a `checkpoint-N` of its run.
        prompt: how the text begins.
        given: values by field; None for one that is not given.

    Raises:
        ConfigError: the model was trained without such a field, or never saw the value.
        CheckpointError: `run.json` is damaged.
    """
    about = {field: value for field, value in given.items() if value is not None}
    if not about:
        return prompt
    fields, values = _trained_with(Path(directory))
    for field, value in about.items():
        if field not in fields:
            had = f"it had {', '.join(fields)}" if fields else "it had no metadata"
            raise ConfigError(f"--{field}: {directory} was trained without it ({had})")
        if value not in values.get(field, [value]):
            near = did_you_mean(value, values[field]) or f"; it knows {_some(values[field])}"
            raise ConfigError(f"--{field} {value}: {directory} never saw it{near}")
    prefix = Prefixes(generator.tokenizer, fields).ids(about)
    return [generator.tokenizer.bos_token_id, *prefix.tolist(), *generator.encode(prompt)]


def _trained_with(directory: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The metadata fields of a run, and the values that training saw, as far as they are listed."""
    run = read_run(directory)
    return list(run.get("training", {}).get("metadata", [])), run.get("metadata", {})


def _some(values: list[str]) -> str:
    return ", ".join(values[:12]) + (" …" if len(values) > 12 else "")
