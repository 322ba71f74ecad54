"""AdamW with a learning rate per layer, clipping, and one training step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from spikeloom.backends.numpy.decoder import Decoder, loss_and_gradients
from spikeloom.backends.numpy.layers import add, cross_entropy, next_tokens
from spikeloom.backends.weights import Array, Weights, fed_shares, initial_weights, write
from spikeloom.config import ModelConfig, RunConfig, TrainingConfig
from spikeloom.training.layer_rates import layer_factors

EPS = 1e-8


class AdamW:
    """AdamW (Loshchilov and Hutter 2019), in place, on weights by name.

        m = b1 m + (1 - b1) g              v = b2 v + (1 - b2) g^2
        w = w (1 - lr * decay) - lr * (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps)

    Decay is for matrices only: gains, biases, payload steps and decays are scales, not weights.

    Args:
        weights: what is trained.
        config: peak learning rate, its factor per layer, betas, weight decay.
    """

    def __init__(self, weights: Weights, config: TrainingConfig) -> None:
        self.weights, self.config = weights, config
        self.factors = layer_factors(weights, config.layer_decay)
        self.m = {name: np.zeros_like(w) for name, w in weights.items()}
        self.v = {name: np.zeros_like(w) for name, w in weights.items()}
        self.steps = 0

    def step(self, grads: Weights, factor: float = 1.0) -> None:
        """One update, at `factor` times the peak learning rate."""
        self.steps += 1
        b1, b2 = self.config.betas
        for name, w in self.weights.items():
            g, m, v = grads[name], self.m[name], self.v[name]
            rate = self.config.learning_rate * factor * self.factors[name]
            m += (1 - b1) * (g - m)
            v += (1 - b2) * (g * g - v)
            if w.ndim == 2:
                w *= 1 - rate * self.config.weight_decay
            w -= rate / (1 - b1**self.steps) * m / (np.sqrt(v / (1 - b2**self.steps)) + EPS)


def clip(grads: Weights, largest: float) -> float:
    """Scale all gradients so that their joint norm is at most `largest`; the norm before."""
    norm = math.sqrt(sum(float(np.vdot(g, g)) for g in grads.values()))
    for g in grads.values():
        g *= min(1.0, largest / (norm + 1e-6))
    return norm


class Learner:
    """A model in training, as `spikeloom.backends.training` drives it."""

    def __init__(self, run: RunConfig) -> None:
        self.config, self.training = run.model, run.training
        self.weights = initial_weights(run.model, run.training.seed)
        self.optimizer = AdamW(self.weights, run.training)

    def step(self, batches: Sequence[Array], factor: float, progress: float) -> tuple[float, float]:
        """One update from rows `[B, L]`, one array per accumulation: loss and active share."""
        c, config = self.training, warmed(self.config, progress, self.training.dead_zone_warmup)
        target = c.target_active_share if config == self.config else None
        grads: Weights = {}
        metered = []
        for rows in batches:
            loss, share, found = loss_and_gradients(
                Decoder(config, self.weights), rows, next_tokens(rows), target, c.rate_weight
            )
            metered.append((loss, share))
            for name, g in found.items():
                add(grads, name, g / len(batches))
        clip(grads, c.clip)
        self.optimizer.step(grads, factor)
        loss, share = np.mean(metered, axis=0)
        return float(loss), float(share)

    def evaluate(self, rows: Array) -> tuple[float, float]:
        """Loss and active share of rows `[B, L]`."""
        out = Decoder(self.config, self.weights).forward(rows)
        share = np.dot(out.rates, fed_shares(self.config))
        return cross_entropy(out.logits, next_tokens(rows))[0], float(share)

    def save(self, directory: Path) -> None:
        """`config.json` and `model.safetensors`."""
        write(directory, self.config, self.weights)


def warmed(config: ModelConfig, progress: float, share: float) -> ModelConfig:
    """The model as it trains while dead zones open: fire levels rise from 1 over that share."""
    if progress >= share:
        return config
    warm = {
        role: replace(c, fire_level=1 + int((c.fire_level - 1) * progress / share))
        for role, c in vars(config.neurons).items()
    }
    return replace(config, neurons=replace(config.neurons, **warm))
