"""What a run leaves in the buffers of a model, and the loss on firing rates."""

import pytest
import torch
from test_curriculum_run import SAM
from test_resume import same_weights
from tiny_runs import interrupted, run_of, weights_of
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from spikeloom.config import NeuronConfig, parse_run
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM
from spikeloom.neurons.lif import LIF
from spikeloom.training.environment import Adaptation
from spikeloom.training.train import train
from spikeloom.training.trainer import FiringRateMixin, spiking_channels

ENVIRONMENT = "model.decoder.environment"


def test_a_run_moves_inhibition_and_stress_and_saves_them(text, tmp_path):
    out = train(run_of(model=SAM, keep=9), text, tmp_path / "run").directory
    early, late = weights_of(out / "checkpoint-2"), weights_of(out / "checkpoint-4")
    inhibition = [name for name in late if name.endswith("inhibition")]
    assert len(inhibition) == 2
    for name in [*inhibition, f"{ENVIRONMENT}.fast", f"{ENVIRONMENT}.stress"]:
        assert late[name].any()
        assert not torch.equal(early[name], late[name])
    diversity = [name for name in late if name.endswith("log_diversity")]
    assert all(torch.equal(early[name], late[name]) for name in diversity)


def test_resume_takes_up_inhibition_and_stress(text, tmp_path, monkeypatch):
    run = run_of(model=SAM, max_steps=6, gradient_accumulation=2, target_firing_rate=0.1)
    whole = train(run, text, tmp_path / "whole").directory
    interrupted(monkeypatch, run, text, tmp_path / "resumed", 7)
    train(run, text, tmp_path / "resumed", resume=True)
    assert same_weights(whole, tmp_path / "resumed")
    assert same_weights(whole / "checkpoint-6", tmp_path / "resumed" / "checkpoint-6")


def test_homeostasis_is_as_fast_as_learning():
    neuron = LIF(NeuronConfig(kind="lif", homeostasis=0.5), 3)
    neuron.reset_parameters()
    schedule = LambdaLR(SGD(neuron.parameters(), lr=2.0), lambda step: 1.0 - step / 4)
    adaptation = Adaptation(neuron, lambda: torch.ones(()))
    moves = []
    for _ in range(4):
        before = neuron.modulation.inhibition.clone()
        neuron.modulation.channel_rate.fill_(0.3)
        adaptation.on_optimizer_step(None, None, None, lr_scheduler=schedule)
        moves.append((neuron.modulation.inhibition - before)[0].item())
        schedule.optimizer.step()
        schedule.step()
    assert moves == pytest.approx([0.1, 0.075, 0.05, 0.025])  # 0.5 (0.3 - 0.1), and less and less


class Pressed(FiringRateMixin):
    target_firing_rate = 0.1

    def __init__(self, model):
        self._channels = spiking_channels(model)


@pytest.mark.parametrize(("rate", "slope"), [(0.4, 1.0), (0.02, -1.0)])
def test_the_rate_loss_pulls_from_both_sides(rate, slope):
    neurons = {**SAM["neurons"], "head": {"kind": "none"}}
    config = parse_run({"model": {**SAM, "neurons": neurons, "num_hidden_layers": 2}}).model
    with torch.device("meta"):
        model = SpikeloomForCausalLM(SpikeloomConfig.from_architecture(config))
    pressed = Pressed(model)
    rates = torch.full((7,), rate, requires_grad=True)  # encoder, 2 layers of 2, readout, head
    pressure = pressed._pressure(torch.tensor(0.5), rates)
    pressure.backward()
    assert pressure.item() == pytest.approx(abs(rate - 0.1))
    assert rates.grad[5:].tolist() == [0, 0]  # wires
    assert rates.grad.sum().item() == pytest.approx(slope)
    assert rates.grad[1].item() == pytest.approx(slope * 384 / (4 * 384 + 16))
