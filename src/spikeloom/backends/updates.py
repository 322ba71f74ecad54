"""What an update follows, for every backend: the rule of each weight, dead zones that open.

The same groups as `spikeloom.training.optimizers` makes in PyTorch. Muon takes the matrices between
neurons; embedding, head and vectors are AdamW's. Decay is for matrices only: gains of norms,
biases, payload steps and decays are scales, not weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from spikeloom.config import ModelConfig, NeuronConfig, TrainingConfig
from spikeloom.training.layer_rates import layer_factors


@dataclass(frozen=True)
class Rule:
    """How a weight is updated.

    Attributes:
        muon: by Muon, else by AdamW.
        factor: of the learning rate (`training.layer_decay`).
        weight_decay: `w` shrinks by this times the learning rate.
    """

    muon: bool
    factor: float
    weight_decay: float


def rules(weights: Mapping[str, Any], config: TrainingConfig) -> dict[str, Rule]:
    """The rule of every weight, by the names in `model.safetensors`."""
    factors = layer_factors(weights, config.layer_decay)
    found = {}
    for name, w in weights.items():
        matrix = w.ndim == 2
        inner = matrix and not name.endswith(("embed_tokens.weight", "lm_head.weight"))
        decay = config.weight_decay if matrix else 0.0
        found[name] = Rule(inner and config.optimizer == "muon", factors[name], decay)
    return found


@dataclass(frozen=True)
class WarmNeuronConfig(NeuronConfig):
    """A neuron whose dead zone is still opening; its rate counts what the whole one would send."""

    whole: int = 1

    @property
    def rate_level(self) -> int:
        return self.whole


def warmed(config: ModelConfig, progress: float, share: float) -> ModelConfig:
    """The model as it trains while dead zones open: fire levels rise from 1 over that share."""
    if progress >= share:
        return config
    warm = {}
    for role, c in vars(config.neurons).items():
        level = 1 + int((c.fire_level - 1) * progress / share)
        warm[role] = WarmNeuronConfig(**vars(c) | {"fire_level": level}, whole=c.fire_level)
    return replace(config, neurons=replace(config.neurons, **warm))
