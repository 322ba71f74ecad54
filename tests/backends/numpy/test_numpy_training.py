"""One update in NumPy is one update in PyTorch: optimizer, groups, clipping, pressure, warm-up."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from parity import reference, small_model, tokens_of, torch_step, weights_of

from spikeloom.backends.numpy.training import AdamW, Learner, clip, warmed
from spikeloom.config import RunConfig, TrainingConfig
from spikeloom.training.budget import Budget
from spikeloom.training.dead_zone import DeadZoneWarmup, warm_level
from spikeloom.training.optimizers import make_optimizer

TRAINING = TrainingConfig(
    learning_rate=1e-2, weight_decay=0.3, clip=0.1, target_active_share=0.01, rate_weight=3.0
)
# An update is about the learning rate, 1e-2. Rates and rotary angles are float32 in PyTorch, and
# Adam divides a gradient by its own size, so that the smallest show it most.
CLOSE = 2e-5
NAMES = ["spikeloom-1m", "gated sdsa", "spike-transformer", "flow-15m", "membrane, hard reset"]


def learner_of(model, training=TRAINING):
    learner = Learner(RunConfig(model=model.config.architecture, training=training))
    learner.weights = weights_of(model)
    learner.optimizer = AdamW(learner.weights, training)
    return learner


@pytest.mark.parametrize("name", NAMES)
def test_updates_are_those_of_pytorch(name):
    model = small_model(name)
    learner, optimizer = learner_of(model), make_optimizer(model, TRAINING)
    for n, factor in enumerate((0.5, 1.0, 0.1)):
        tokens = tokens_of(model, 2, 11, seed=n)
        said = torch_step(model, optimizer, tokens, factor, TRAINING)
        loss, share = learner.step([tokens], factor, 1.0)
        assert (loss, share) == pytest.approx((said.loss, said.share), abs=1e-6)
        for key, expected in weights_of(model).items():
            np.testing.assert_allclose(learner.weights[key], expected, atol=CLOSE, err_msg=key)


def test_half_open_dead_zones_train_as_in_pytorch_without_pressure():
    training = replace(TRAINING, dead_zone_warmup=0.5)
    model = small_model("spikeloom-1m")
    learner, optimizer = learner_of(model, training), make_optimizer(model, training)
    DeadZoneWarmup(model, Budget(10), 0.5).on_step_begin(None, _AtStep(2), None)
    tokens = tokens_of(model, 2, 11)
    torch_step(model, optimizer, tokens, 1.0, training, target=False)
    learner.step([tokens], 1.0, 0.2)
    for key, expected in weights_of(model).items():
        np.testing.assert_allclose(learner.weights[key], expected, atol=CLOSE, err_msg=key)


class _AtStep:
    def __init__(self, step):
        self.global_step = step


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.29, 0.3, 0.31, 1.0])
def test_fire_levels_rise_as_in_pytorch(progress):
    config = small_model("spikeloom-1m").config.architecture
    neurons = warmed(config, progress, 0.3).neurons
    graded = {role: n for role, n in vars(config.neurons).items() if n.kind == "graded"}
    assert len(graded) == 5  # all but that of the encoder, which the preset has not
    for role, neuron in graded.items():
        expected = warm_level(neuron.fire_level, progress, 0.3)
        assert getattr(neurons, role).fire_level == expected
    assert (warmed(config, progress, 0.3) == config) == (progress >= 0.3)


def test_accumulated_batches_count_as_one():
    model = small_model("spikeloom-1m")
    tokens = tokens_of(model, 4, 11)
    whole, halves = learner_of(model), learner_of(model)
    assert halves.step([tokens[:2], tokens[2:]], 1.0, 1.0) == pytest.approx(
        whole.step([tokens], 1.0, 1.0)
    )
    for key in whole.weights:
        np.testing.assert_allclose(halves.weights[key], whole.weights[key], atol=1e-9)


@pytest.mark.parametrize("name", ["spikeloom-1m", "membrane, hard reset"])
def test_learning_rates_by_layer_are_those_of_pytorch(name):
    training, model = replace(TRAINING, layer_decay=0.5), small_model(name)
    learner, optimizer = learner_of(model, training), make_optimizer(model, training)
    peaks = [group["lr"] for group in optimizer.param_groups]
    start = weights_of(model)
    for n in range(3):
        tokens = tokens_of(model, 2, 11, seed=n)
        learner.step([tokens], 1.0, 1.0)
        reference(model, tokens, training.target_active_share, training.rate_weight)
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimizer.step()
    assert len(set(peaks)) == 4
    for key, expected in weights_of(model).items():
        np.testing.assert_allclose(learner.weights[key], expected, atol=CLOSE, err_msg=key)
    head, low = "model.decoder.norm.weight", "model.decoder.layers.0.blocks.0.norm.weight"
    moved = {key: np.abs(learner.weights[key] - start[key]).max() for key in (head, low)}
    assert moved[low] < 0.5 * moved[head]


@pytest.mark.parametrize("largest", [0.5, 100.0])
def test_clipping_is_that_of_pytorch(largest):
    rng = np.random.default_rng(0)
    ours = {"a": rng.standard_normal((3, 4)), "b": rng.standard_normal(5)}
    theirs = {k: torch.nn.Parameter(torch.zeros(g.shape).double()) for k, g in ours.items()}
    for k, g in ours.items():
        theirs[k].grad = torch.from_numpy(g.copy())
    norm = torch.nn.utils.clip_grad_norm_(theirs.values(), largest)
    assert clip(ours, largest) == pytest.approx(norm.item())
    for k, g in ours.items():
        np.testing.assert_allclose(g, theirs[k].grad.numpy(), rtol=1e-12)


def test_a_learner_learns():
    config = replace(small_model("spikeloom-1m").config.architecture, hidden_size=32)
    training = TrainingConfig(learning_rate=3e-3, target_active_share=0.3)
    learner = Learner(RunConfig(model=config, training=training))
    rows = np.tile(np.arange(10), (4, 3))
    first = learner.evaluate(rows)[0]
    for _ in range(30):
        loss, share = learner.step([rows], 1.0, 1.0)
    assert loss < 0.5 * first
    assert learner.evaluate(rows) == pytest.approx((loss, share), abs=0.5)
