import pytest
import torch
from torch import nn

from spikeloom.config import NeuronConfig
from spikeloom.metrics import Recorder
from spikeloom.neurons import make_neuron


def neuron_with(num_steps=1, **changes):
    """theta = 1 and no bias: payloads can be read off the input."""
    config = NeuronConfig(**{"theta": 1.0, "levels": 5, "fire_level": 2, **changes})
    neuron = make_neuron(config, 4, num_steps)
    neuron.reset_parameters()
    return neuron


class Holder(nn.Module):
    def __init__(self, neuron):
        super().__init__()
        self.head_neuron = neuron

    def forward(self, x):
        return self.head_neuron(x)[0]


X = torch.tensor([[[3.0, 1.0, 0.0, -9.0], [-5.0, 2.0, 0.0, 4.0], [0.0, 1.0, 0.0, -6.0]]])
# payloads           3    0    0    -5       -5    2    0    4        0    0    0   -5


def test_counts_by_hand():
    model = Holder(neuron_with())
    with Recorder(model, keep=True) as recorder:
        model(X)
    record = recorder.records["head_neuron"]
    assert record.reads == record.tokens == 3
    assert record.fired.tolist() == [2, 1, 0, 3]
    assert record.saturated.tolist() == [1, 0, 0, 2]
    assert record.unary == 3 + 5 + 5 + 2 + 4 + 5
    assert record.bitwise == 2 + 2 + 2 + 1 + 1 + 2
    assert record.largest == 5
    assert record.channel_rate == pytest.approx(6 / 12)
    assert record.mean_count == pytest.approx(24 / 12)
    assert record.bitwise_count == pytest.approx(10 / 12)
    assert record.dead == [2]
    assert record.saturated_channels == [3]  # channel 0 is there in half of its spikes, not more
    assert record.payloads[0, :, 0].tolist() == [3, -5, 0]
    assert (record.layer, record.role) == (None, "head")


def test_hooks_are_gone_afterwards_even_after_an_error():
    model = Holder(neuron_with())
    recorder = Recorder(model)
    with pytest.raises(RuntimeError), recorder:
        model(X[..., :3])
    with recorder:
        model(X)
    model(X)
    assert recorder.records["head_neuron"].reads == 3


def test_only_chosen_positions_count():
    model = Holder(neuron_with())
    with Recorder(model, keep=True) as recorder:
        recorder.positions = torch.tensor([[False, True, False]])
        model(X)
    record = recorder.records["head_neuron"]
    assert record.reads == 1
    assert record.fired.tolist() == [1, 1, 0, 1]
    assert record.payloads.shape == (1, 3, 4)


def test_step_clock_counts_each_step_as_a_read():
    model = Holder(neuron_with(num_steps=2, beta=0.5))
    steps = torch.stack([X[0], torch.zeros_like(X[0])])  # one row, T = 2
    with Recorder(model) as recorder:
        recorder.positions = torch.tensor([[True, False, True]])
        model(steps)
    record = recorder.records["head_neuron"]
    assert (record.reads, record.tokens) == (4, 2)
    # First step as above; in the second half of what the soft reset left: -9 + 5 = -4 gives -2.
    assert record.fired.tolist() == [1, 0, 0, 3]
    assert record.unary == 3 + 5 + 5 + 2


def test_binary_neurons_cannot_saturate():
    model = Holder(neuron_with(levels=1, fire_level=1))
    with Recorder(model) as recorder:
        model(X)
    assert recorder.records["head_neuron"].saturated_channels == []
