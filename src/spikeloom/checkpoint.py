"""Where the checkpoint directory of a model lies, and whether it is whole; nothing heavy is loaded.

    DIR/config.json, model.safetensors, tokenizer files    the model, once a run has ended
    DIR/checkpoint-N/…                                     the same and more, while it runs

`resolve` finds the directory with the weights in it; the readers below refuse, in one line, what is
missing, truncated or not ours. Nothing is unpickled, no code of a directory is run.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, deserialize, safe_open

from spikeloom.config import ModelConfig, expand_neurons
from spikeloom.errors import CheckpointError, ConfigError
from spikeloom.strict import build

MODEL_TYPE = "spikeloom"

_PREFIX = "checkpoint-"
_WEIGHTS = "model.safetensors"
_RUN_FILE = "run.json"
_BFLOAT16 = "BF16"
_INDEX = "model.safetensors.index.json"
# What a model class is called, and what its checkpoints are for.
_HEADS = {
    "SpikeloomForCausalLM": ("language model", "eval, generate and chat"),
    "SpikeloomForTokenClassification": ("tagger", "tag, and eval --task ner"),
    "SpikeloomForSequenceClassification": ("classifier of texts", "demo-colour"),
}


def resolve(directory: str | Path) -> Path:
    """The directory that holds the weights: this one, or its newest whole `checkpoint-N`.

    Raises:
        CheckpointError: there is no such directory, or nothing whole in it.
    """
    path = Path(directory)
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a directory: give a checkpoint directory")
    if (path / _WEIGHTS).exists() or (path / _INDEX).exists():
        return path
    for candidate in reversed(steps(path)):
        if is_whole(candidate):
            print(f"{path} holds an unfinished run: using {candidate.name}", file=sys.stderr)
            return candidate
    if not (path / "config.json").exists():
        raise CheckpointError(f"{path} is not a checkpoint: it has no config.json")
    raise CheckpointError(f"{path} is not a whole checkpoint: it has no {_WEIGHTS}")


def steps(run: Path) -> list[Path]:
    """The folders `checkpoint-N` of a run, oldest first, whole or not."""
    return sorted((p for p in run.glob(f"{_PREFIX}*") if _number(p).isdigit()), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a `checkpoint-N` was saved."""
    return int(_number(checkpoint))


def is_whole(path: Path) -> bool:
    """Whether the config and the header of every weight file can be read."""
    try:
        read_config(path)
        read_shapes(path)
    except CheckpointError:
        return False
    return True


def read_config(path: Path) -> ModelConfig:
    """The architecture in `config.json`.

    Raises:
        CheckpointError: the file is missing, not JSON, of another model, or impossible.
    """
    tree = read_json(path)
    ours = {f.name: tree[f.name] for f in fields(ModelConfig) if f.name in tree}
    try:
        model: ModelConfig = build(ModelConfig, expand_neurons(ours), "model")
    except ConfigError as exc:
        raise CheckpointError(f"{path / 'config.json'}: {exc}") from None
    return model


def read_json(path: Path) -> dict[str, Any]:
    """All of `config.json`.

    Raises:
        CheckpointError: the file is missing, not JSON, or of another model.
    """
    file = path / "config.json"
    try:
        tree: Any = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is not a checkpoint: it has no config.json") from None
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"{file} is not readable as JSON ({exc})") from None
    kind = tree.get("model_type") if isinstance(tree, dict) else None
    if kind != MODEL_TYPE:
        raise CheckpointError(f"{path} holds a model of type {kind!r}, not a spikeloom checkpoint")
    return dict(tree)


def read_run(path: Path) -> dict[str, Any]:
    """`run.json` of a checkpoint, or of the run that its `checkpoint-N` belongs to; or nothing.

    Raises:
        CheckpointError: the file is damaged.
    """
    for folder in (path, path.parent):
        if (folder / _RUN_FILE).is_file():
            try:
                run: Any = json.loads((folder / _RUN_FILE).read_text("utf-8"))
            except (OSError, ValueError) as exc:
                raise CheckpointError(f"{folder / _RUN_FILE} is not readable ({exc})") from None
            if not isinstance(run, dict) or not isinstance(run.get("training", {}), dict):
                raise CheckpointError(f"{folder / _RUN_FILE} is not readable: no table of settings")
            return run
    return {}


def require_head(path: Path, wanted: str) -> None:
    """Refuse a checkpoint with another head than the class `wanted` has.

    Raises:
        CheckpointError: says what it holds, and which verbs read that.
    """
    saved = (read_json(path).get("architectures") or [wanted])[0]
    if saved != wanted and saved in _HEADS:
        holds, verbs = _HEADS[saved]
        raise CheckpointError(
            f"{path} holds a {holds}, not a {_HEADS[wanted][0]}: it is for {verbs}"
        )


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the headers of the weight files; opening one checks its length too.

    Raises:
        CheckpointError: a file is missing, truncated, or not a safetensors file.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _weight_files(path):
        try:
            with safe_open(file, framework="numpy") as archive:
                for name in archive.keys():  # noqa: SIM118
                    shapes[name] = tuple(archive.get_slice(name).get_shape())
        except (SafetensorError, OSError) as exc:
            raise _broken(file, exc) from None
    return shapes


def read_tensors(path: Path, framework: str = "pt") -> dict[str, Any]:
    """All weights, as views of the files where possible.

    Args:
        path: a checkpoint directory.
        framework: `pt` for tensors of PyTorch, `numpy` for arrays (bfloat16, which NumPy lacks,
            comes out as float32: the same numbers).

    Raises:
        CheckpointError: a file is missing, truncated, or not a safetensors file.
    """
    tensors: dict[str, Any] = {}
    for file in _weight_files(path):
        try:
            with safe_open(file, framework=framework) as archive:
                names = list(archive.keys())
                if framework == "numpy" and _in_bfloat16(archive, names):
                    tensors |= _widened(file)
                else:
                    tensors |= {name: archive.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as exc:
            raise _broken(file, exc) from None
    return tensors


def _in_bfloat16(archive: Any, names: list[str]) -> bool:
    return any(archive.get_slice(name).get_dtype() == _BFLOAT16 for name in names)


def _widened(file: Path) -> dict[str, Any]:
    """The tensors of a file as arrays; a bfloat16 is the upper half of a float32."""
    import numpy as np

    found = {}
    for name, tensor in deserialize(file.read_bytes()):
        if tensor["dtype"] != _BFLOAT16:
            raise CheckpointError(f"{file}: {name} is not in bfloat16, though other weights are")
        halves = np.frombuffer(tensor["data"], np.uint16).astype(np.uint32)
        found[name] = (halves << 16).view(np.float32).reshape(tensor["shape"])
    return found


def _number(checkpoint: Path) -> str:
    return checkpoint.name.removeprefix(_PREFIX)


def _broken(file: Path, why: Exception) -> CheckpointError:
    return CheckpointError(f"{file} is truncated or not a safetensors file ({why})")


def _weight_files(path: Path) -> list[Path]:
    """One file, or the shards that an index names."""
    if not (path / _INDEX).exists():
        if not (path / _WEIGHTS).exists():
            raise CheckpointError(f"{path} is not a whole checkpoint: it has no {_WEIGHTS}")
        return [path / _WEIGHTS]
    try:
        index: dict[str, Any] = json.loads((path / _INDEX).read_text("utf-8"))
        return [path / name for name in sorted(set(index["weight_map"].values()))]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as exc:
        raise CheckpointError(f"{path / _INDEX} is not a readable index ({exc})") from None
