"""The dead zone opens in training mode only, in equal stages, and is whole in the end."""

from dataclasses import replace

import pytest
import torch

from spikeloom.config import NeuronConfig
from spikeloom.neurons import make_neuron
from spikeloom.ops.lif import dispatch
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
    callback.on_step_begin(None, State(step=5), None)
    assert neuron.train()(x)[0].item() == 0.0


def test_the_rate_is_that_of_the_whole_dead_zone_all_along():
    neuron = make_neuron(NeuronConfig(levels=8, fire_level=5, theta=0.3), 16).train()
    neuron.reset_parameters()
    x = torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    whole = neuron(x)[2]
    (pull,) = torch.autograd.grad(whole, x)
    assert 0.1 < whole.item() < 0.3
    neuron.open_dead_zone(1)
    emission, _, rate = neuron(x)
    assert (emission != 0).float().mean() > 0.8
    assert rate.item() == whole.item()
    assert torch.equal(torch.autograd.grad(rate, x)[0], pull)


def graphs_of_a_warm_up(neuron, norm, monkeypatch):
    """How many graphs torch.compile makes while the fire level rises from 1 to 6."""
    emission = pytest.importorskip("spikeloom.ops.lif.emission", reason="triton is not installed")
    monkeypatch.setattr(dispatch, "_runs_in_triton", lambda *_, **__: True)
    monkeypatch.setattr(dispatch, "emission", emission, raising=False)
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    x = torch.randn(1, 3, 8)
    fire = torch.compile(lambda x: neuron(x, before=norm)[0], backend=backend, fullgraph=True)
    for level in range(1, 7):
        neuron.open_dead_zone(level)
        wanted = make_neuron(replace(neuron.config, fire_level=level), 8)
        wanted.load_state_dict(neuron.state_dict())
        assert torch.equal(fire(x), wanted(x, before=norm)[0])
    return len(graphs)


def test_a_warm_up_on_a_gpu_compiles_once_and_not_once_a_stage(monkeypatch):
    neuron = make_neuron(NeuronConfig(levels=8, fire_level=6, theta=0.2), 8).train()
    neuron.reset_parameters()
    norm = torch.nn.RMSNorm(8, eps=1e-6)
    assert graphs_of_a_warm_up(neuron, norm, monkeypatch) == 6
    neuron.dead_zone = torch.zeros(2)  # as on a GPU
    monkeypatch.setattr(dispatch, "TRITON", True)
    monkeypatch.setattr(torch.nn.Parameter, "is_cuda", True)
    assert graphs_of_a_warm_up(neuron, norm, monkeypatch) == 1


class State:
    """What the callback reads of a TrainerState."""

    def __init__(self, step):
        self.global_step = step
