"""What stays of what a neuron hears: known processes, and the currents of a real model."""

import sys
from pathlib import Path

import pytest
import torch

from placeholder import make_checkpoint
from spikeloom.evaluation.checkpoint import load
from spikeloom.neurons import Neuron

sys.path.append(str(Path(__file__).parents[2] / "research"))

from persistence import heard, persistence


def test_what_never_changes():
    constant, left = persistence(torch.tensor([2.0, -0.5]).expand(3, 50, 2))
    assert constant == pytest.approx(1)
    assert left == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("stays", [0.0, 0.6, 0.9])
def test_what_decays_from_token_to_token(stays):
    torch.manual_seed(0)
    steps = [torch.randn(64, 4)]
    for _ in range(999):
        steps.append(stays * steps[-1] + (1 - stays**2) ** 0.5 * torch.randn(64, 4))
    constant, left = persistence(torch.stack(steps, dim=1))
    assert constant == pytest.approx(0, abs=0.01)
    assert left == pytest.approx(1 - stays**2, abs=0.01)


def test_it_hears_what_neurons_answer_to(tmp_path):
    model, _ = load(make_checkpoint(tmp_path))
    found = heard(model, torch.arange(20)[None])
    spiking = {n: m for n, m in model.named_modules() if isinstance(m, Neuron)}
    assert list(found) == list(spiking)
    for name, (x, emission) in found.items():
        again = spiking[name](x - spiking[name].bias)[0]  # what it adds itself is in `x`
        torch.testing.assert_close(again, emission)
