"""Every shipped architecture is a YAML file of this folder; this module lists and reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from spikeloom.errors import ConfigError, did_you_mean
from spikeloom.strict import parse_yaml

FOLDER = Path(__file__).parent
_RUN_FILE = "run.json"
_PARTS = ("model", "tokenizer", "training", "description")  # of a YAML file


def names() -> list[str]:
    """The shipped presets, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(name_or_path: str) -> dict[str, Any]:
    """The raw tree of a preset (by name), or of a YAML file or the directory of a run (by path).

    Raises:
        ConfigError: no such preset or file, or it is not YAML with keys at the top.
    """
    path = Path(name_or_path)
    if name_or_path in names():
        path = FOLDER / f"{name_or_path}.yaml"
    elif (path / _RUN_FILE).is_file():
        return _of_run(path / _RUN_FILE)
    elif not path.is_file():
        hint = did_you_mean(name_or_path, names())
        raise ConfigError(
            f"{name_or_path}: neither a preset nor a YAML file{hint}; see `spikeloom presets`"
        )
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        problem = str(error).splitlines()[0]
        raise ConfigError(f"{path}: not readable as YAML ({problem})") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys such as model, tokenizer, training")
    return tree


def _of_run(file: Path) -> dict[str, Any]:
    """What a run was configured with, without what it was given (data and the like)."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        return {key: tree[key] for key in _PARTS if key in tree}
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{file}: not readable as JSON ({error})") from None
