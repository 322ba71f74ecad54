"""The directory of a run: who may write to it, what it records, and how files get there whole.

`run.json` is written last and vouches for the tokenizer beside it; a directory that holds a model
without it is somebody else's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spikeloom.checkpoint import steps
from spikeloom.config import ModelConfig, RunConfig, TrainingConfig
from spikeloom.errors import CheckpointError, ConfigError
from spikeloom.strict import build, to_dict
from spikeloom.training.trainer import STAGING, resumable, saving

RUN_FILE = "run.json"


def claim(out: Path, run: RunConfig, resume: bool) -> Path | None:
    """Make `out` ours; the checkpoint to resume from, if any."""
    if not is_main():
        return next(reversed(resumable(out)), None)
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out} is a file: --out needs a directory")
    _refuse_foreign(out, resume)
    with saving(out):
        out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / STAGING, ignore_errors=True)  # of a process that was killed while saving
    if not resume:
        return None
    if (out / RUN_FILE).exists():
        _same_model(_recorded(out), run, out)
    found = resumable(out)
    whence = f"from {found[-1].name}" if found else "from the start: nothing was saved yet"
    print(f"resuming {out} {whence}", file=sys.stderr)
    return found[-1] if found else None


def _refuse_foreign(out: Path, resume: bool) -> None:
    """A folder that holds a model is only touched if a run of ours made it and shall go on."""
    if (out / RUN_FILE).exists():
        if not resume:
            raise CheckpointError(
                f"{out} already holds a run: --resume continues it, or choose another"
            )
    elif steps(out) or any((out / name).exists() for name in ("config.json", "tokenizer.json")):
        raise CheckpointError(
            f"{out} holds a model or tokenizer, but no {RUN_FILE} of a run: choose another --out"
        )


def _recorded(out: Path) -> dict[str, Any]:
    try:
        recorded: dict[str, Any] = json.loads((out / RUN_FILE).read_text("utf-8"))
        # built, so that a run that is older than a key is compared by the key's default
        parts = {"model": ModelConfig, "training": TrainingConfig}
        return {part: to_dict(build(kind, recorded[part], part)) for part, kind in parts.items()}
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{out / RUN_FILE} is not readable ({error}): choose another --out"
        ) from None


def _same_model(stored: dict[str, Any], run: RunConfig, out: Path) -> None:
    """Refuse to resume with another architecture, optimizer or layer decay; the vocabulary is the
    tokenizer's affair, and all else (budget, learning rate, batch) may change."""
    from_tokenizer = {"vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"}
    asked = to_dict(run)
    keys = [("model", key) for key in asked["model"] if key not in from_tokenizer]
    for part, key in [*keys, ("training", "optimizer"), ("training", "layer_decay")]:
        before, now = stored[part][key], asked[part][key]
        if before != now:
            raise ConfigError(
                f"{out} was trained with {part}.{key}={before!r}, not {now!r}: "
                "resume with the same config, or choose another --out"
            )


def record(out: Path, words: Any, run: dict[str, Any]) -> None:
    """Tokenizer and `run.json`; the latter last, so that it vouches for the former."""
    with staged(out) as staging:
        words.save_pretrained(staging)
        (staging / RUN_FILE).write_text(json.dumps(run, indent=2), encoding="utf-8")


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder whose files then move to `out`, each in one step, `run.json` last."""
    staging = out / STAGING
    with saving(out):
        staging.mkdir()
        yield staging
        for file in sorted(staging.iterdir(), key=lambda file: (file.name == RUN_FILE, file.name)):
            os.replace(file, out / file.name)
        staging.rmdir()


def is_main() -> bool:
    """Whether this is the first of several processes, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def processes() -> int:
    """How many train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))
