"""The rule of every weight is the group that PyTorch's optimizer puts it in."""

from dataclasses import replace

import pytest
import torch
from parity import NAMES, small_model, weights_of

from spikeloom.backends.updates import Rule, rules
from spikeloom.config import TrainingConfig
from spikeloom.training.optimizers import JointOptimizer, make_optimizer

TRAINING = TrainingConfig(learning_rate=1e-2, weight_decay=0.3, layer_decay=0.5)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("name", NAMES)
def test_rules_are_the_groups_of_pytorch(name, kind):
    model, training = small_model(name), replace(TRAINING, optimizer=kind)
    optimizer = make_optimizer(model, training)
    names = {id(p): n for n, p in model.named_parameters()}
    parts = optimizer.optimizers if isinstance(optimizer, JointOptimizer) else [optimizer]
    expected = {}
    for part in parts:
        muon = isinstance(part, torch.optim.Muon)
        for group in part.param_groups:
            rule = Rule(muon, pytest.approx(group["lr"] / 1e-2), group["weight_decay"])
            expected |= {names[id(p)]: rule for p in group["params"]}
    assert rules(weights_of(model), training) == expected
    assert any(rule.muon for rule in expected.values()) == (kind == "muon")
