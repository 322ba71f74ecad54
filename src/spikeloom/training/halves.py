"""The two halves of a hybrid, its spiking and its dense layers, trained in turns.

    separate      the spiking layers for the first half of the budget, then the dense ones on top of
                  what those have learned
    alternating   turns of `halves_every` optimizer steps, the spiking layers first

Embedding, last norm and head belong to both and always learn. A half that rests keeps its weights:
its gradients are dropped right before the optimizer's step, so that nothing else of a run (several
processes, gradient checkpointing, resume) has to know. With `separate`,
`schedule: cosine_with_restarts` and `restarts: 2` give each half a schedule of its own.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import TrainerCallback

from spikeloom.config import TrainingConfig
from spikeloom.training.budget import Budget


class Halves(TrainerCallback):
    """Lets one half of the layers rest.

    Args:
        model: a `SpikeloomForCausalLM` with layers of both kinds.
        budget: tells the progress.
        config: the order of turns.
    """

    def __init__(self, model: Any, budget: Budget, config: TrainingConfig) -> None:
        self.budget = budget
        self.config = config
        self.halves: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        listed = model.config.architecture.layer_list
        for module, layer in zip(model.model.decoder.layers, listed, strict=True):
            self.halves[layer.spiking] += module.parameters()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        progress = self.budget.progress(state.global_step)
        learning = spiking_turn(self.config, progress, state.global_step)
        for parameter in self.halves[not learning]:
            parameter.grad = None


def spiking_turn(config: TrainingConfig, progress: float, step: int) -> bool:
    """Whether the spiking layers learn in this step (or else the dense ones).

    Args:
        config: the order of turns.
        progress: used share of the budget before the step.
        step: optimizer steps before it.
    """
    if config.halves == "separate":
        return progress < 0.5
    return step // config.halves_every % 2 == 0
