"""What training tells neurons besides gradients: how often they fired, and how the loss is going.

Inhibition that follows firing rates and the stress that all neurons share are buffers of the model
(`spikeloom.neurons.modulation`): saved with it, and resumed with it. This callback moves them, once
per optimizer step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback

from spikeloom.neurons import Environment, Modulation


class Adaptation(TrainerCallback):
    """Adapts inhibition and stress of a model after every optimizer step.

    With several processes each follows its own batches; the buffers of the first one count, because
    DistributedDataParallel hands them to all before every forward.

    Homeostasis slows down as the learning rate does. At its full speed beside weights that hardly
    move any more it would drive every neuron to its target rate, whatever the model needs of it;
    runs whose loss rose near their end are why (docs/models/real-sam.md).

    Args:
        model: whose neurons adapt.
        loss: the cross-entropy of the last batch, a scalar.
    """

    def __init__(self, model: nn.Module, loss: Callable[[], Tensor]) -> None:
        modules = list(model.modules())
        self.neurons = [m for m in modules if isinstance(m, Modulation)]
        self.environments = [m for m in modules if isinstance(m, Environment)]
        self.loss = loss

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        schedule = kwargs["lr_scheduler"]
        speed = schedule.get_last_lr()[0] / schedule.base_lrs[0]
        for modulation in self.neurons:
            modulation.adapt(speed)
        for environment in self.environments:
            environment.observe(self.loss())
