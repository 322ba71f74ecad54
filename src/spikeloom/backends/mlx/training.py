"""The training step in MLX: loss, gradients, clipping, AdamW and Muon."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn, optimizers
from mlx.utils import tree_flatten, tree_map

from spikeloom.backends.mlx import checkpoint
from spikeloom.backends.mlx.decoder import Model
from spikeloom.backends.mlx.device import on_gpu
from spikeloom.backends.updates import Rule, rules, warmed
from spikeloom.backends.weights import Array, fed_shares, initial_weights, roles
from spikeloom.config import ModelConfig, RunConfig, TrainingConfig

SCALE = 100.0  # of the gradients that Muon sees


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
        self.optimizer = GroupedOptimizer(self.model, run.training)
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
            target = self.training.target_active_share
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


class GroupedOptimizer:
    """AdamW, or Muon for the matrices between neurons, on a model's parameters, clipped.

    Parameters of one rule (`backends.updates`) are a group with an optimizer of its own.

    Args:
        model: what is trained.
        config: optimizer, peak learning rate, its factor per layer, betas, weight decay, clipping.
    """

    def __init__(self, model: nn.Module, config: TrainingConfig) -> None:
        own = rules(dict(tree_flatten(model.trainable_parameters())), config)
        self.rules = list(dict.fromkeys(own.values()))
        self.parts = [optimizer_of(rule, config) for rule in self.rules]
        filters = [lambda name, _, rule=rule: own[name] == rule for rule in self.rules[:-1]]
        self.joint = optimizers.MultiOptimizer(self.parts, filters)
        self.joint.init(model.trainable_parameters())
        self.model, self.config = model, config
        self.state = [model.state, *(part.state for part in self.parts)]
        self._update = compiler(config)(self._clipped_update, inputs=self.state, outputs=self.state)

    def step(self, gradients: Any, factor: float = 1.0) -> None:
        """One update, at `factor` times the peak learning rate."""
        for part, rule in zip(self.parts, self.rules, strict=True):
            part.learning_rate = self.config.learning_rate * factor * rule.factor
        self._update(gradients)
        mx.eval(self.state)

    def _clipped_update(self, gradients: Any) -> None:
        clipped, _ = optimizers.clip_grad_norm(gradients, self.config.clip)
        self.joint.update(self.model, clipped)


def optimizer_of(rule: Rule, config: TrainingConfig) -> optimizers.Optimizer:
    """What updates the parameters of one rule; its learning rate is set at every step."""
    if rule.muon:
        return Muon(rule.weight_decay)
    return optimizers.AdamW(
        learning_rate=config.learning_rate,
        betas=list(config.betas),
        weight_decay=rule.weight_decay,
        bias_correction=True,
    )


class Muon(optimizers.Muon):
    """MLX's Muon with decay and update size as in `torch.optim.Muon` and `match_rms_adamw`.

        w = w (1 - lr * decay) - lr * 0.2 sqrt(max(d_out, d_in)) * orthogonal(momentum)

    MLX's own puts the decay into the gradient, where orthogonalising loses its size, and scales by
    `sqrt(max(1, d_out / d_in))`, which is short of the above by a factor of `0.2 sqrt(d_in)`. It
    also adds 1e-7 to the norm that it divides by, which small gradients feel: they are taken times
    `SCALE`, which changes nothing else.

    Args:
        decay: `w` shrinks by this times the learning rate.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(learning_rate=0.0, weight_decay=0.0)
        self.decay = decay

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: Any) -> mx.array:
        """A matrix `[d_out, d_in]` after one update."""
        move = super().apply_single(SCALE * gradient, mx.zeros_like(parameter), state)
        kept = parameter * (1 - self.learning_rate * self.decay)
        return kept + 0.2 * math.sqrt(parameter.shape[1]) * move


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
    *fed, own = fed_shares(model.config).tolist()
    share = (out.rates * mx.array(fed)).sum() + own
    if target is None:
        return loss, loss, share
    return loss + rate_weight * mx.maximum(share - target, 0), loss, share
