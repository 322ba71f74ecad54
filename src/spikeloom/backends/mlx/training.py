"""The training step in MLX: loss, gradients, clipping, AdamW with a rate per layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn, optimizers
from mlx.utils import tree_flatten, tree_map

from spikeloom.backends.mlx import checkpoint
from spikeloom.backends.mlx.decoder import Model
from spikeloom.backends.mlx.device import on_gpu
from spikeloom.backends.numpy.training import warmed
from spikeloom.backends.weights import Array, fed_shares, initial_weights, roles
from spikeloom.config import ModelConfig, RunConfig, TrainingConfig
from spikeloom.training.layer_rates import layer_factors


class Learner:
    """A model in training, as `spikeloom.backends.training` drives it.

    Args:
        run: architecture and training settings.
    """

    def __init__(self, run: RunConfig) -> None:
        self.config, self.training = run.model, run.training
        weights = initial_weights(run.model, run.training.seed)
        self.model = checkpoint.from_numpy(run.model, weights)
        self.model.compute_in(half_precision(run.training.dtype))
        self._compile = compiler(run.training)
        self.optimizer = LayerwiseAdamW(self.model, run.training)
        self._compiled: dict[ModelConfig, Callable[..., Any]] = {}

    def step(self, batches: Sequence[Array], factor: float, progress: float) -> tuple[float, float]:
        """One update from rows `[B, L]`, one array per accumulation: loss and active share."""
        gradients = self.gradients(warmed(self.config, progress, self.training.dead_zone_warmup))
        found = [gradients(mx.array(rows)) for rows in batches]
        mean = tree_map(lambda *each: sum(each) / len(each), *found)
        self.optimizer.step(mean[1], factor)
        _, loss, share = mean[0]
        mx.eval(self.model.parameters(), loss, share)
        return float(loss.item()), float(share.item())

    def gradients(self, config: ModelConfig) -> Callable[..., Any]:
        """Rows to `losses` and gradients; compiled, once for every stage of the dead zones."""
        modules = dict(self.model.named_modules())
        for name, (neuron, *_) in roles(config).items():
            modules[name].config = neuron
        if config not in self._compiled:
            target = self.training.target_active_share if config == self.config else None
            total = nn.value_and_grad(
                self.model, lambda x: losses(self.model, x, target, self.training.rate_weight)
            )
            state = [self.model.state]  # `total` puts its own arrays there while it is traced
            self._compiled[config] = self._compile(total, inputs=state, outputs=state)
        return self._compiled[config]

    def evaluate(self, rows: Array) -> tuple[float, float]:
        """Loss and active share of rows `[B, L]`."""
        self.gradients(self.config)  # dead zones are fully open
        found: Any = losses(self.model, mx.array(rows))
        return found[1].item(), found[2].item()

    def save(self, directory: Path) -> None:
        """`config.json` and `model.safetensors`, in float32."""
        checkpoint.save(directory, self.model)


class LayerwiseAdamW:
    """AdamW on a model's parameters, clipped, with a learning rate per layer.

    Decay is for matrices only: gains, biases, payload steps and decays are scales, not weights.
    Parameters of one learning rate and one decay are a group with an optimizer of its own.

    Args:
        model: what is trained.
        config: peak learning rate, its factor per layer, betas, weight decay, clipping.
    """

    def __init__(self, model: nn.Module, config: TrainingConfig) -> None:
        weights = dict(tree_flatten(model.trainable_parameters()))
        factors = layer_factors(weights, config.layer_decay)
        groups = {name: (factors[name], w.ndim == 2) for name, w in weights.items()}
        self.factors = list(dict.fromkeys(groups.values()))
        self.parts = [
            optimizers.AdamW(
                learning_rate=config.learning_rate,
                betas=list(config.betas),
                weight_decay=config.weight_decay if matrices else 0.0,
                bias_correction=True,
            )
            for _, matrices in self.factors
        ]
        filters = [lambda name, _, own=own: groups[name] == own for own in self.factors[:-1]]
        self.joint = optimizers.MultiOptimizer(self.parts, filters)
        self.joint.init(model.trainable_parameters())
        self.model, self.config = model, config
        self.state = [model.state, *(part.state for part in self.parts)]
        self._update = compiler(config)(self._clipped_update, inputs=self.state, outputs=self.state)

    def step(self, gradients: Any, factor: float = 1.0) -> None:
        """One update, at `factor` times the peak learning rate."""
        for part, (own, _) in zip(self.parts, self.factors, strict=True):
            part.learning_rate = self.config.learning_rate * factor * own
        self._update(gradients)
        mx.eval(self.state)

    def _clipped_update(self, gradients: Any) -> None:
        clipped, _ = optimizers.clip_grad_norm(gradients, self.config.clip)
        self.joint.update(self.model, clipped)


def compiler(config: TrainingConfig) -> Callable[..., Any]:
    """`mx.compile` on a GPU, or where it is asked for; else what leaves a function as it is.

    On Linux it calls g++ for every new kernel, which takes minutes.
    """
    if config.compile or on_gpu():
        return mx.compile
    return lambda function, **state: function


def half_precision(dtype: str) -> mx.Dtype | None:
    """The type of weight products in training: bfloat16 on a GPU unless float32 is asked for."""
    return mx.bfloat16 if dtype == "bfloat16" or (dtype == "auto" and on_gpu()) else None


def losses(
    model: Model, rows: mx.array, target: float | None = None, rate_weight: float = 2.0
) -> tuple[mx.array, mx.array, mx.array]:
    """What is descended, cross-entropy in nats, and active share, of rows `[B, L]`.

    What is descended is `cross-entropy + rate_weight * max(0, active share - target)`.
    """
    out = model.forward(rows)
    logits = out.logits[:, :-1].astype(mx.float32)
    loss = nn.losses.cross_entropy(logits, rows[:, 1:], reduction="mean")
    share = (out.rates * mx.array(fed_shares(model.config), mx.float32)).sum()
    if target is None:
        return loss, loss, share
    return loss + rate_weight * mx.maximum(share - target, 0), loss, share
