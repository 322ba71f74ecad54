"""AdamW and Muon, clipping, and one training step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spikeloom.backends.numpy.decoder import Decoder, loss_and_gradients
from spikeloom.backends.numpy.layers import add, cross_entropy, next_tokens
from spikeloom.backends.updates import rules, warmed
from spikeloom.backends.weights import Array, Weights, fed_shares, initial_weights, touched, write
from spikeloom.config import RunConfig, TrainingConfig

EPS, MOMENTUM = 1e-8, 0.95  # AdamW's, Muon's


class Optimizer:
    """AdamW (Loshchilov and Hutter 2019), for inner matrices Muon (Jordan 2024) if that is asked.

    In place: `w = w (1 - lr * decay) - lr * u`, where AdamW's u after n steps is

        m = b1 m + (1 - b1) g      v = b2 v + (1 - b2) g^2
        u = (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps)

    and Muon's, of a matrix `[d_out, d_in]`, in the size that AdamW's has (Liu et al. 2025),

        m = mu m + (1 - mu) g      u = 0.2 sqrt(max(d_out, d_in)) orthogonal(mu m + (1 - mu) g)

    Args:
        weights: what is trained; `backends.updates.rules` says how each of them is.
        config: optimizer, peak learning rate, its factor per layer, betas, weight decay.
    """

    def __init__(self, weights: Weights, config: TrainingConfig) -> None:
        self.weights, self.config, self.rules = weights, config, rules(weights, config)
        self.m = {name: np.zeros_like(w) for name, w in weights.items()}
        self.v = {n: np.zeros_like(w) for n, w in weights.items() if not self.rules[n].muon}
        self.steps = 0

    def step(self, grads: Weights, factor: float = 1.0) -> None:
        """One update, at `factor` times the peak learning rate."""
        self.steps += 1
        for name, w in self.weights.items():
            rule = self.rules[name]
            rate = self.config.learning_rate * factor * rule.factor
            w *= 1 - rate * rule.weight_decay
            w -= rate * (self.muon if rule.muon else self.adam)(name, grads[name])

    def adam(self, name: str, g: Array) -> Array:
        (b1, b2), m, v = self.config.betas, self.m[name], self.v[name]
        m += (1 - b1) * (g - m)
        v += (1 - b2) * (g * g - v)
        return m / (1 - b1**self.steps) / (np.sqrt(v / (1 - b2**self.steps)) + EPS)

    def muon(self, name: str, g: Array) -> Array:
        m = self.m[name]
        m += (1 - MOMENTUM) * (g - m)
        return 0.2 * math.sqrt(max(g.shape)) * orthogonal(g + MOMENTUM * (m - g))


def orthogonal(g: Array) -> Array:
    """`U S V^T` for `g = U D V^T` `[d_out, d_in]`, S in 0.68 to 1.16 where D is over 0.005 |D|.

    Five steps `x = a x + (b A + c A^2) x`, `A = x x^T`, of Newton and Schulz, from `x = g / |g|`.
    """
    a, b, c = 3.4445, -4.7750, 2.0315  # steep at 0: small singular values grow fast
    tall, x = g.shape[0] > g.shape[1], g / max(np.linalg.norm(g), 1e-7)
    x = x.T if tall else x
    for _ in range(5):
        A = x @ x.T
        x = a * x + (b * A + c * A @ A) @ x
    return x.T if tall else x


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
        self.optimizer = Optimizer(self.weights, run.training)

    def step(self, batches: Sequence[Array], factor: float, progress: float) -> tuple[float, float]:
        """One update from rows `[B, L]`, one array per accumulation: loss and active share."""
        c, config = self.training, warmed(self.config, progress, self.training.dead_zone_warmup)
        pressure = (c.target_active_share, c.rate_weight)
        grads: Weights = {}
        metered = []
        for rows in batches:
            loss, share, found = loss_and_gradients(
                Decoder(config, self.weights), rows, next_tokens(rows), *pressure
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
        share = touched(out.rates, fed_shares(self.config))
        return cross_entropy(out.logits, next_tokens(rows))[0], share

    def save(self, directory: Path) -> None:
        """`config.json` and `model.safetensors`."""
        write(directory, self.config, self.weights)
