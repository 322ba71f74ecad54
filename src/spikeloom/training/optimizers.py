"""Parameter groups, AdamW, and Muon for the matrices.

Weight decay goes to matrices only: gains of norms, biases, payload steps and decays are scales, not
weights. With Muon, matrices between neurons are orthogonalised (`training.muon`, its update
scaled to AdamW's so that one learning rate serves both); embedding, head and vectors stay with
AdamW. With `layer_decay` each of these groups is split once more, by learning rate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from spikeloom.config import TrainingConfig
from spikeloom.training.layer_rates import layer_factors
from spikeloom.training.muon import BatchedMuon


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer that `config.optimizer` asks for."""
    matrices, embeddings, vectors = parameter_groups(model)
    adamw: dict[str, Any] = {"lr": config.learning_rate, "betas": config.betas}
    adamw["fused"] = next(model.parameters()).is_cuda  # one launch where there would be dozens
    plain = by_rate(model, vectors, config, weight_decay=0.0)
    if config.optimizer == "adamw":
        decayed = by_rate(model, matrices + embeddings, config, config.weight_decay)
        return torch.optim.AdamW(decayed + plain, **adamw)
    orthogonal = by_rate(model, matrices, config, config.weight_decay)
    rest = by_rate(model, embeddings, config, config.weight_decay) + plain
    parts: list[torch.optim.Optimizer] = []  # frozen parameters may leave nothing for one of them
    if orthogonal:
        parts.append(BatchedMuon(orthogonal))
    if rest:
        parts.append(torch.optim.AdamW(rest, **adamw))
    return JointOptimizer(parts)


def by_rate(
    model: nn.Module, parameters: list[nn.Parameter], config: TrainingConfig, weight_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups of one weight decay: one for every learning rate (`config.layer_decay`)."""
    factors = layer_factors((name for name, _ in model.named_parameters()), config.layer_decay)
    own = {id(p): factors[name] for name, p in model.named_parameters()}
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(own[id(parameter)], []).append(parameter)
    return [
        {"params": group, "lr": config.learning_rate * factor, "weight_decay": weight_decay}
        for factor, group in sorted(groups.items(), reverse=True)
    ]


def parameter_groups(
    model: nn.Module,
) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Trainable matrices of linear layers, embeddings (heads included), and the rest."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    if isinstance(model, PreTrainedModel):
        heads = (model.get_output_embeddings(), getattr(model, "classifier", None))
        embeddings |= {id(head.weight) for head in heads if head is not None}
    groups: tuple[list[nn.Parameter], ...] = ([], [], [])
    for parameter in model.parameters():
        if parameter.requires_grad:
            kind = 1 if id(parameter) in embeddings else 0 if parameter.ndim == 2 else 2
            groups[kind].append(parameter)
    return groups[0], groups[1], groups[2]


class JointOptimizer(torch.optim.Optimizer):
    """Several optimizers that step as one; they share their parameter groups with it."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        self.optimizers = optimizers
        super().__init__([g for o in optimizers for g in o.param_groups], {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": [o.state_dict() for o in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.param_groups = [g for o in self.optimizers for g in o.param_groups]
