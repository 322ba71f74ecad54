"""The checkpoint directory: PyTorch's, read and written as it is, and quantised ones.

A quantised directory is mlx-lm's: `config.json` says `quantization: {group_size, bits}`, and the
weights have `.scales` and `.biases` beside them. PyTorch and NumPy cannot read these.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten

from spikeloom.backends.mlx.decoder import Model
from spikeloom.backends.weights import layout
from spikeloom.checkpoint import MODEL_TYPE, read_config, read_shapes
from spikeloom.config import ModelConfig
from spikeloom.errors import CheckpointError
from spikeloom.strict import to_dict

Weights = dict[str, mx.array]


def load(directory: Path) -> Model:
    """The model of a checkpoint directory, in the types of its weights.

    Raises:
        CheckpointError: it is not a checkpoint, is damaged, or its weights do not fit its config.
    """
    config = read_config(directory)
    read_shapes(directory)  # refuses damaged files in one line
    model, weights = Model(config), read_weights(directory)
    weights = model.sanitize(weights)
    if (how := quantization(directory)) is not None:
        nn.quantize(
            model,
            group_size=how["group_size"],
            bits=how["bits"],
            class_predicate=lambda name, _: f"{name}.scales" in weights,
        )
    check(directory, model, weights)
    model.load_weights(list(weights.items()))
    mx.eval(model.parameters())
    return model


def read_weights(directory: Path) -> Weights:
    """All weights by name, of one file or several."""
    weights: dict[str, Any] = {}
    for file in sorted(directory.glob("model*.safetensors")):
        weights.update(mx.load(str(file)))  # type: ignore[arg-type]
    return weights


def weights_of(model: Model) -> Weights:
    """All weights by the names they have in checkpoints."""
    return dict(tree_flatten(model.parameters()))  # type: ignore[arg-type]


def check(directory: Path, model: Model, weights: Weights) -> None:
    """Refuse weights that are missing, foreign, or of another shape than the config asks for."""
    wanted = {name: w.shape for name, w in weights_of(model).items()}
    for name in sorted(wanted.keys() | weights.keys()):
        found = weights[name].shape if name in weights else "missing"
        if found != wanted.get(name):
            asked = wanted.get(name, "nothing of that name")
            raise CheckpointError(f"{directory}: {name} is {found}, config.json asks for {asked}")


def save(directory: Path, model: Model, how: dict[str, int] | None = None) -> None:
    """`config.json` and `model.safetensors`, as PyTorch reads them unless they are quantised.

    Args:
        directory: exists.
        model: what is saved.
        how: `{group_size, bits}` of a quantised model.
    """
    weights = weights_of(model)
    kind: dict[str, Any] = {"architectures": ["SpikeloomForCausalLM"], "model_type": MODEL_TYPE}
    dtype = str(model.model.decoder.norm.weight.dtype).removeprefix("mlx.core.")
    extra = {} if how is None else {"quantization": how}
    tree = {**kind, "dtype": dtype, **to_dict(model.config), **extra}
    mx.save_safetensors(str(directory / "model.safetensors"), weights, {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(tree, indent=2), encoding="utf-8")


def quantization(directory: Path) -> dict[str, int] | None:
    """`{group_size, bits}` of a quantised checkpoint, None of another.

    Raises:
        CheckpointError: the entry is not that.
    """
    found = json.loads((directory / "config.json").read_text("utf-8")).get("quantization")
    if found is None:
        return None
    try:
        return {"group_size": int(found["group_size"]), "bits": int(found["bits"])}
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            f"{directory / 'config.json'}: quantization: expected group_size and bits, got {found}"
        ) from None


def from_numpy(config: ModelConfig, weights: dict[str, np.ndarray]) -> Model:
    """A model with the weights of `spikeloom.backends.weights`."""
    assert weights.keys() == layout(config).keys()
    model = Model(config)
    model.load_weights([(name, mx.array(w)) for name, w in weights.items()])
    return model
