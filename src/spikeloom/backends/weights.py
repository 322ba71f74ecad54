"""What a model consists of, by the names in `model.safetensors`: neurons, products, weights.

Which neuron feeds which products, every weight's shape and initial values, and the checkpoint
directory that PyTorch reads and writes too. No backend is imported here: arrays are NumPy's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from spikeloom.checkpoint import MODEL_TYPE, read_config, read_tensors
from spikeloom.config import ModelConfig, NeuronConfig
from spikeloom.errors import CheckpointError
from spikeloom.strict import to_dict

ROOT = "model.decoder"
Array = np.ndarray
Weights = dict[str, Array]
Shape = tuple[int, ...]


def head_name(config: ModelConfig) -> str:
    """The tied head is the embedding."""
    return f"{ROOT}.embed_tokens" if config.tie_word_embeddings else "lm_head"


def roles(config: ModelConfig) -> dict[str, tuple[NeuronConfig, int, dict[str, int]]]:
    """Every neuron by name, in order of computation: config, channels, and the products it feeds
    with their `d_out`."""
    found, n, D, F = {}, config.neurons, config.hidden_size, config.intermediate_size
    kv = config.key_value_heads * config.head_dim
    for i, layer in enumerate(config.layer_list):
        mix, mlp = f"{ROOT}.layers.{i}.blocks.0", f"{ROOT}.layers.{i}.blocks.1"
        read = {f"{mix}.mixer.{x}_proj": width for x, width in (("q", D), ("k", kv), ("v", kv))}
        if layer.mixer != "attention" and layer.decay == "gated":
            read[f"{mix}.mixer.decay_proj"] = config.num_attention_heads
        found[f"{mix}.input_neuron"] = (n.mixer_input, D, read)
        found[f"{mix}.output_neuron"] = (n.mixer_output, D, {f"{mix}.o_proj": D})
        if layer.mlp != "none":
            ups = ["up", "gate"] if layer.mlp == "swiglu" else ["up"]
            up = {f"{mlp}.mlp.{x}_proj": F for x in ups}
            found[f"{mlp}.input_neuron"] = (n.mlp_input, D, up)
            found[f"{mlp}.mlp.hidden_neuron"] = (n.mlp_hidden, F, {f"{mlp}.mlp.down_proj": D})
    found[f"{ROOT}.head_neuron"] = (n.head, D, {head_name(config): config.vocab_size})
    return found


def fed_shares(config: ModelConfig) -> Array:
    """The share of all weights that each neuron feeds, and at last, the share of those that neurons
    read themselves, whatever fires: `[N + 1]`."""
    found = roles(config).values()
    fed = [d_in * sum(products.values()) for _, d_in, products in found]
    own = sum(2 * neuron.gain_rank * size for neuron, size, _ in found)
    return np.array([*fed, own]) / (sum(fed) + own)


def touched(rates: Sequence[float] | Array, shares: Array) -> float:
    """Weights read per token over all weights: channel rates `[N]` under `fed_shares` `[N + 1]`."""
    return float(np.dot([*rates, 1.0], shares))


def initial_weights(config: ModelConfig, seed: int = 0) -> Weights:
    """Fresh float32 weights: the distributions of the PyTorch model, another generator."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(0, std, shape) + value).astype(np.float32)
        for name, (shape, std, value) in layout(config).items()
    }


def layout(config: ModelConfig) -> dict[str, tuple[Shape, float, float | Array]]:
    """Shape of every weight, standard deviation and mean of its initial values."""
    D = config.hidden_size
    found: dict[str, tuple[Shape, float, float | Array]] = {}
    for name, (neuron, size, products) in roles(config).items():
        found |= {f"{norm}.weight": ((n,), 0.0, 1.0) for norm, n in _norms(name, config)}
        found |= {f"{name}.{key}": ((size,), 0.0, v) for key, v in _constants(neuron).items()}
        if rank := neuron.gain_rank:
            found[f"{name}.gain.narrow"] = ((rank, size), size**-0.5, 0.0)
            found[f"{name}.gain.widen"] = ((size, rank), 0.0, 0.0)
            found[f"{name}.gain.bias"] = ((size,), 0.0, 0.0)
        for product, d_out in products.items():
            into_residual = product.endswith(("o_proj", "down_proj"))
            std = (size * (2 * config.num_hidden_layers if into_residual else 1)) ** -0.5
            found[f"{product}.weight"] = ((d_out, size), std, 0.0)
    # Memories of 8 to 512 tokens, evenly spread on a logarithmic scale over the heads.
    tokens = np.logspace(math.log10(8), math.log10(512), config.num_attention_heads)
    for i, layer in enumerate(config.layer_list):
        if layer.mixer != "attention" and layer.decay != "none":
            name = f"{ROOT}.layers.{i}.blocks.0.mixer.raw_decay"
            found[name] = (tokens.shape, 0.0, np.log(np.expm1(1 / tokens)))
    found[f"{ROOT}.embed_tokens.weight"] = ((config.vocab_size, D), D**-0.5, 0.0)
    return found


def read(directory: Path) -> tuple[ModelConfig, Weights]:
    """The model of a checkpoint directory, its weights in float32 at least.

    Raises:
        CheckpointError: it is not a checkpoint, is damaged, or its weights do not fit its config.
    """
    config = read_config(directory)
    tensors = read_tensors(directory, framework="numpy")
    weights = {k: w.astype(np.promote_types(w.dtype, np.float32)) for k, w in tensors.items()}
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    wanted = {name: shape for name, (shape, _, _) in layout(config).items()}
    for name in sorted(wanted.keys() | weights.keys()):
        found = weights[name].shape if name in weights else "missing"
        if found != wanted.get(name):
            asked = wanted.get(name, "nothing of that name")
            raise CheckpointError(f"{directory}: {name} is {found}, config.json asks for {asked}")
    return config, weights


def write(directory: Path, config: ModelConfig, weights: Weights) -> None:
    """`config.json` and `model.safetensors`, as PyTorch reads them."""
    kind = {"architectures": ["SpikeloomForCausalLM"], "model_type": MODEL_TYPE}
    tree = {**kind, "dtype": str(next(iter(weights.values())).dtype), **to_dict(config)}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(tree, indent=2), encoding="utf-8")


def _norms(neuron: str, config: ModelConfig) -> Iterator[tuple[str, int]]:
    """The norms that come right before a neuron."""
    block, _, kind = neuron.rpartition(".")
    if kind in ("input_neuron", "head_neuron"):
        yield f"{block}.norm", config.hidden_size
    if kind == "output_neuron":
        if config.output_norm:
            yield f"{block}.output_norm", config.hidden_size
        if config.qk_norm:
            yield from ((f"{block}.mixer.{x}_norm", config.head_dim) for x in "qk")


def _constants(c: NeuronConfig) -> dict[str, float]:
    values = {} if c.kind == "none" else {"bias": 0.0}
    if c.kind == "graded":
        values["log_theta"] = math.log(c.theta)
    if c.kind != "none" and c.learn_beta:
        values["raw_beta"] = math.log(c.beta / (1 - c.beta))
    return values
