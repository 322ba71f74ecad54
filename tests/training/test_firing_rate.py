"""The firing-rate loss: pressure above the target only, in training only, beside the log."""

import math

import pytest
import torch
from tiny_runs import run_of
from transformers import Trainer, TrainingArguments

from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM, active_share, fed_weights
from spikeloom.training.trainer import FiringRateMixin


class PlainTrainer(FiringRateMixin, Trainer):
    """The mixin on the stock Trainer, as on TRL's."""


@pytest.fixture
def trainer(tmp_path):
    torch.manual_seed(0)
    model = SpikeloomForCausalLM(SpikeloomConfig.from_architecture(run_of().model))
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    return PlainTrainer(model, arguments)


@pytest.fixture
def inputs():
    ids = torch.randint(0, 300, (4, 16), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids}


def share_of(model, inputs):
    return active_share(model(**inputs).firing_rates, fed_weights(model))


def test_without_a_target_the_loss_is_the_cross_entropy(trainer, inputs):
    trainer.model.train()
    assert trainer.compute_loss(trainer.model, inputs) == trainer.model(**inputs).loss


@pytest.mark.parametrize(("offset", "pressed"), [(-0.05, True), (0.05, False)])
def test_only_what_is_above_the_target_costs(trainer, inputs, offset, pressed):
    trainer.model.train()
    share = share_of(trainer.model, inputs).item()
    trainer.target_active_share, trainer.rate_weight = share + offset, 3.0
    loss, outputs = trainer.compute_loss(trainer.model, inputs, return_outputs=True)
    assert (loss - outputs.loss).item() == pytest.approx(0.15 if pressed else 0.0, abs=1e-5)


def test_evaluation_feels_no_pressure(trainer, inputs):
    trainer.target_active_share = 0.01
    trainer.model.eval()
    assert trainer.compute_loss(trainer.model, inputs) == trainer.model(**inputs).loss


def test_the_meter_shows_the_cross_entropy_and_the_share(trainer, inputs):
    trainer.target_active_share = 0.01
    trainer.model.train()
    trainer.compute_loss(trainer.model, inputs)
    trainer.compute_loss(trainer.model, inputs)
    loss, share = trainer.take_metered()
    assert loss == pytest.approx(trainer.model(**inputs).loss.item())
    assert share == pytest.approx(share_of(trainer.model, inputs).item())
    assert trainer.take_metered() is None


def test_the_pressure_reaches_every_neuron_that_feeds_a_product(trainer, inputs):
    model = trainer.model.train()
    share_of(model, inputs).backward()
    reached = [
        name
        for name, p in model.named_parameters()
        if name.endswith("neuron.bias") and p.grad is not None and p.grad.abs().sum() > 0
    ]
    expected = [name for name, _ in model.named_parameters() if name.endswith("neuron.bias")]
    assert reached == expected


def test_the_pressure_lowers_the_share(trainer, inputs):
    model = trainer.model.train()
    before = share_of(model, inputs).item()
    trainer.target_active_share, trainer.rate_weight = before / 2, 20.0
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = trainer.compute_loss(model, inputs)
        loss.backward()
        optimizer.step()
    assert math.isfinite(loss.item())
    assert share_of(model, inputs).item() < 0.75 * before
