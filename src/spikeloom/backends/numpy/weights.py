"""Weights by name, as `model.safetensors` holds them: initial values, reading, writing.

The directory is the one that PyTorch reads and writes (`spikeloom.checkpoint`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from spikeloom.backends.numpy.decoder import MIXERS, MLPS, ROOT, roles
from spikeloom.backends.numpy.neurons import Array, Weights
from spikeloom.checkpoint import MODEL_TYPE, read_config, read_tensors
from spikeloom.config import ModelConfig, NeuronConfig
from spikeloom.errors import CheckpointError, ConfigError
from spikeloom.strict import to_dict


class Initial(NamedTuple):
    """One weight before training: normal with this deviation, or, at deviation 0, this value."""

    shape: tuple[int, ...]
    std: float = 0.0
    value: float | Array = 0.0


def initial_weights(config: ModelConfig, seed: int = 0) -> Weights:
    """Fresh float32 weights: the distributions of the PyTorch model, another generator."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, initial in layout(config).items():
        noise = rng.standard_normal(initial.shape, np.float32) * np.float32(initial.std)
        weights[name] = (noise + initial.value).astype(np.float32)
    return weights


def layout(config: ModelConfig) -> dict[str, Initial]:
    """Every weight of a model.

    Raises:
        ConfigError: a mixer or MLP that this backend lacks.
    """
    check_supported(config)
    D, V = config.hidden_size, config.vocab_size
    found = {f"{ROOT}.embed_tokens.weight": Initial((V, D), D**-0.5)}
    found |= {f"{name}.weight": Initial((size,), value=1.0) for name, size in _norms(config)}
    for i, layer in enumerate(config.layer_list):
        if layer.mixer != "attention" and layer.decay != "none":
            name = f"{ROOT}.layers.{i}.blocks.0.mixer.raw_decay"
            found[name] = Initial((config.num_attention_heads,), value=_raw_decays(config))
    for name, (neuron, products) in roles(config).items():
        d_in = config.intermediate_size if name.endswith("hidden_neuron") else D
        found |= {f"{name}.{k}": Initial((d_in,), value=v) for k, v in _constants(neuron).items()}
        for product in products:
            into_residual = product.endswith(("o_proj", "down_proj"))
            std = (d_in * (2 * config.num_hidden_layers if into_residual else 1)) ** -0.5
            found.setdefault(f"{product}.weight", Initial((_d_out(product, config), d_in), std))
    return found


def check_supported(config: ModelConfig) -> None:
    """Refuse what is not written out here.

    Raises:
        ConfigError: names the field and the value.
    """
    for i, layer in enumerate(config.layer_list):
        for key, known in (("mixer", MIXERS), ("mlp", MLPS)):
            value = getattr(layer, key)
            if value not in known:
                raise ConfigError(
                    f"model.layers[{i}].{key}: the numpy backend has no '{value}' "
                    f"(it has {', '.join(known)})"
                )


def read(directory: Path) -> tuple[ModelConfig, Weights]:
    """The model of a checkpoint directory.

    Raises:
        CheckpointError: it is not a checkpoint, is damaged, or its weights do not fit its config.
        ConfigError: it needs what this backend lacks.
    """
    config = read_config(directory)
    weights = read_tensors(directory, framework="numpy")
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    wanted = {name: initial.shape for name, initial in layout(config).items()}
    for name in sorted(wanted.keys() | weights.keys()):
        found = weights[name].shape if name in weights else "missing"
        if found != wanted.get(name):
            asked = wanted.get(name, "nothing of that name")
            raise CheckpointError(f"{directory}: {name} is {found}, config.json asks for {asked}")
    return config, weights


def write(directory: Path, config: ModelConfig, weights: Weights) -> None:
    """`config.json` and `model.safetensors`, as PyTorch reads them."""
    tree: dict[str, Any] = {
        "architectures": ["SpikeloomForCausalLM"],
        "model_type": MODEL_TYPE,
        "dtype": str(next(iter(weights.values())).dtype),
        **to_dict(config),
    }
    tensors = {name: np.ascontiguousarray(weight) for name, weight in weights.items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(tree, indent=2), encoding="utf-8")


def _norms(config: ModelConfig) -> Iterator[tuple[str, int]]:
    D, K = config.hidden_size, config.head_dim
    for i, layer in enumerate(config.layer_list):
        block = f"{ROOT}.layers.{i}.blocks"
        yield f"{block}.0.norm", D
        if config.output_norm:
            yield f"{block}.0.output_norm", D
        if config.qk_norm:
            yield from ((f"{block}.0.mixer.{x}_norm", K) for x in "qk")
        if layer.mlp != "none":
            yield f"{block}.1.norm", D
    yield f"{ROOT}.norm", D


def _constants(c: NeuronConfig) -> dict[str, float]:
    if c.kind == "none":
        return {}
    values = {"bias": 0.0}
    if c.kind == "graded":
        values["log_theta"] = math.log(c.theta)
    if c.learn_beta:
        values["raw_beta"] = math.log(c.beta / (1 - c.beta))
    return values


def _raw_decays(config: ModelConfig) -> Array:
    """Memories of 8 to 512 tokens, evenly spread on a logarithmic scale over the heads."""
    tokens = np.logspace(math.log10(8), math.log10(512), config.num_attention_heads)
    return np.log(np.expm1(1 / tokens))


def _d_out(product: str, config: ModelConfig) -> int:
    width = config.key_value_heads * config.head_dim
    sizes = {"k_proj": width, "v_proj": width, "decay_proj": config.num_attention_heads}
    sizes |= dict.fromkeys(("up_proj", "gate_proj"), config.intermediate_size)
    sizes |= dict.fromkeys(("embed_tokens", "lm_head"), config.vocab_size)
    return sizes.get(product.rsplit(".", 1)[-1], config.hidden_size)
