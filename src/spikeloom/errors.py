"""Errors that a user can act on.

    SpikeloomError                 anything the user can mend; the CLI prints it as one line, exit 2
    ├── ConfigError                a preset, a YAML file or a `--set` has a bad key, type or value
    ├── DataError                  a source is missing, empty, binary, or too short
    ├── CheckpointError            a directory is not a checkpoint, or is truncated or foreign
    ├── TrainingError              training cannot go on: NaN loss, out of memory, a full disk
    └── MissingExtraError          an optional package is absent; names the install command

Everything else is a bug, and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SpikeloomError(Exception):
    """Base of all errors that say in one line what was wrong and what would do."""


class ConfigError(SpikeloomError):
    """A configuration names an unknown key, a wrong type or an impossible value."""


class DataError(SpikeloomError):
    """A text source cannot be read, or holds too little."""


class CheckpointError(SpikeloomError):
    """A checkpoint directory is missing, truncated, or not ours."""


class TrainingError(SpikeloomError):
    """Training stopped for a reason outside the code: NaN, memory, disk."""


class MissingExtraError(SpikeloomError):
    """An optional dependency is not installed.

    Args:
        package: what could not be imported.
        extra: the extra of spikeloom that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'spikeloom[{extra}]'")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the closest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
