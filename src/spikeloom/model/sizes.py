"""How large a model is, without the cost of building one."""

from __future__ import annotations

from typing import Any

import torch

from spikeloom import presets
from spikeloom.config import load_config
from spikeloom.model.huggingface import SpikeloomConfig, SpikeloomForCausalLM
from spikeloom.model.products import neurons, products


def preset_sizes() -> list[dict[str, Any]]:
    """Name, parameters and main sizes of every shipped preset."""
    rows = []
    for name in presets.names():
        run = load_config(name)
        with torch.device("meta"):
            model = SpikeloomForCausalLM(SpikeloomConfig.from_architecture(run.model))
        rows.append({"name": name, "description": run.description, **describe(model)})
    return rows


def describe(model: SpikeloomForCausalLM) -> dict[str, Any]:
    """Parameters, sizes, and which products are spike-fed; gains are read for every token."""
    config = model.config.architecture
    fed = products(model)
    spiking = sum(p.weights for p in fed if p.spikes)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "context": config.max_position_embeddings,
        "mixers": [layer.mixer for layer in config.layer_list],
        "mlps": [layer.mlp for layer in config.layer_list],
        "weights_in_products": sum(p.weights for p in fed),
        "weights_fed_by_spikes": spiking,
        "weights_in_gains": sum(neuron.dense_weights for neuron in neurons(model).values()),
        "dense_products": [p.name for p in fed if not p.spikes],
    }


def random_model(preset: str, seed: int = 0) -> SpikeloomForCausalLM:
    """A preset at its initial weights, in evaluation mode."""
    torch.manual_seed(seed)
    config = SpikeloomConfig.from_architecture(load_config(preset).model)
    return SpikeloomForCausalLM(config).eval()
