"""The dead zone opens in training mode only, in equal stages, and is whole in the end."""

import pytest
import torch

from spikeloom.config import NeuronConfig
from spikeloom.neurons import make_neuron
from spikeloom.training.budget import Budget
from spikeloom.training.dead_zone import DeadZoneWarmup, warm_level


@pytest.mark.parametrize(
    ("progress", "level"),
    [(0.0, 1), (0.099, 1), (0.1, 2), (0.25, 3), (0.49, 5), (0.5, 6), (1.0, 6)],
)
def test_levels_rise_in_equal_stages(progress, level):
    assert warm_level(6, progress, 0.5) == level


def test_no_warmup_starts_whole():
    assert warm_level(6, 0.0, 0.0) == 6


def test_only_training_mode_sees_lower_levels():
    neuron = make_neuron(NeuronConfig(levels=8, fire_level=5, theta=1.0), 1)
    neuron.reset_parameters()
    callback = DeadZoneWarmup(neuron, Budget(max_steps=10), share=0.5)
    x = torch.tensor([[[3.0]]])
    callback.on_step_begin(None, State(step=2), None)  # progress 0.2: level 1 + int(4 * 0.4) = 2
    assert neuron.train()(x)[0].item() == pytest.approx(3.0)
    assert neuron.eval()(x)[0].item() == 0.0
    assert not callback.finished
    callback.on_step_begin(None, State(step=5), None)
    assert neuron.train()(x)[0].item() == 0.0
    assert callback.finished


class State:
    """What the callback reads of a TrainerState."""

    def __init__(self, step):
        self.global_step = step
