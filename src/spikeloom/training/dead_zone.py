"""Open the dead zone step by step: a model learns densely first, then learns to be silent.

Training behind a full dead zone from the first step is slow: most channels are silent, and the
straight-through gradient is coarse. With a warm-up, the fire level of every graded neuron rises
from 1 (every payload is sent) to its own over the first part of the budget. Only training mode sees
the lower levels: evaluation, samples and checkpoints always run with the full dead zone. So do
firing rates, in training too: they count what would fire with it, and the firing-rate loss shapes
what neurons hear from the first step.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import TrainerCallback

from spikeloom.neurons import Neuron
from spikeloom.training.budget import Budget


class DeadZoneWarmup(TrainerCallback):
    """Sets the training fire level of all neurons from the progress of the run.

    Args:
        model: whose neurons are warmed up.
        budget: tells the progress.
        share: of the budget over which fire levels rise; 0 starts with the full dead zone.
    """

    def __init__(self, model: nn.Module, budget: Budget, share: float) -> None:
        self.neurons = [m for m in model.modules() if isinstance(m, Neuron)]
        self.budget = budget
        self.share = share

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        progress = self.budget.progress(state.global_step)
        for neuron in self.neurons:
            level = warm_level(neuron.config.fire_level, progress, self.share)
            if level != neuron.training_fire_level:
                neuron.open_dead_zone(level)


def warm_level(fire_level: int, progress: float, share: float) -> int:
    """The fire level at a progress in [0, 1]: rises from 1 in equal stages, whole at `share`."""
    if progress >= share:
        return fire_level
    return 1 + int((fire_level - 1) * progress / share)
