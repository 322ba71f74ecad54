"""One update in NumPy is one update in PyTorch: optimizer, groups, clipping, pressure, warm-up."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from parity import TRAINED, reference, small_model, tokens_of, torch_step, weights_of

from spikeloom.backends.numpy.training import Learner, Optimizer, clip, orthogonal
from spikeloom.backends.updates import warmed
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
# PyTorch's Muon orthogonalises in bfloat16: what it moves a matrix by is off by up to this share.
ROUGH = 0.02


def learner_of(model, training=TRAINING):
    learner = Learner(RunConfig(model=model.config.architecture, training=training))
    learner.weights = weights_of(model)
    learner.optimizer = Optimizer(learner.weights, training)
    return learner


@pytest.fixture
def whole_muon(monkeypatch):
    """PyTorch's Muon orthogonalises in the type of the weights, not in bfloat16."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("name", TRAINED)
def test_updates_are_those_of_pytorch(name, kind, whole_muon):
    model, training = small_model(name), replace(TRAINING, optimizer=kind)
    learner, optimizer = learner_of(model, training), make_optimizer(model, training)
    for n, factor in enumerate((0.5, 1.0, 0.1)):
        tokens = tokens_of(model, 2, 11, seed=n)
        said = torch_step(model, optimizer, tokens, factor, training)
        loss, share = learner.step([tokens], factor, 1.0)
        assert (loss, share) == pytest.approx((said.loss, said.share), abs=1e-6)
        for key, expected in weights_of(model).items():
            np.testing.assert_allclose(learner.weights[key], expected, atol=CLOSE, err_msg=key)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (24, 24), (1, 30)])
def test_muon_on_tall_and_wide_matrices_is_that_of_pytorch(shape, dtype, whole_muon):
    ours, theirs, steps = muon_of(shape, dtype)
    for g in steps:
        ours.step({"up_proj.weight": g})
        theirs.param_groups[0]["params"][0].grad = torch.from_numpy(g)
        theirs.step()
    found, expected = ours.weights["up_proj.weight"], theirs.param_groups[0]["params"][0]
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found, expected.detach().numpy(), atol=1e-12 if dtype == np.float64 else 2e-6, rtol=0
    )


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (24, 24)])
def test_muon_in_bfloat16_is_near(shape):
    ours, theirs, steps = muon_of(shape, np.float32, decay=0.0)
    start = ours.weights["up_proj.weight"].copy()
    for g in steps:
        ours.step({"up_proj.weight": g})
        theirs.param_groups[0]["params"][0].grad = torch.from_numpy(g)
        theirs.step()
    found, expected = ours.weights["up_proj.weight"], theirs.param_groups[0]["params"][0]
    apart, moved = found - expected.detach().numpy(), found - start
    assert 0 < np.linalg.norm(apart) < ROUGH * np.linalg.norm(moved)


def muon_of(shape, dtype, decay=0.3):
    """Our optimizer and PyTorch's on one matrix, and gradients for three steps."""
    rng = np.random.default_rng(0)
    w, *steps = (rng.standard_normal(shape).astype(dtype) for _ in range(4))
    parameter = torch.nn.Parameter(torch.from_numpy(w.copy()))
    settings = {"lr": 1e-2, "weight_decay": decay, "adjust_lr_fn": "match_rms_adamw"}
    training = replace(TRAINING, optimizer="muon", weight_decay=decay)
    ours = Optimizer({"up_proj.weight": w}, training)
    return ours, torch.optim.Muon([parameter], **settings), steps


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (30, 24)])
def test_orthogonal_keeps_the_directions_and_evens_their_sizes(shape):
    g = np.random.default_rng(1).standard_normal(shape)
    u, sizes, v = np.linalg.svd(g, full_matrices=False)
    found = u.T @ orthogonal(g) @ v.T
    np.testing.assert_allclose(found, np.diag(np.diag(found)), atol=1e-9)
    assert sizes.min() > 0.005 * np.linalg.norm(sizes)
    assert sizes.max() > 2 * sizes.min()
    assert (np.diag(found) > 0.68).all()
    assert (np.diag(found) < 1.16).all()


@pytest.mark.parametrize("zero", [0.0, 1e-30])
def test_a_gradient_of_nothing_moves_nothing(zero):
    assert np.abs(orthogonal(np.full((3, 4), zero))).max() <= 1e-20


def test_half_open_dead_zones_train_as_in_pytorch():
    training = replace(TRAINING, dead_zone_warmup=0.5)
    model = small_model("spikeloom-1m")
    learner, optimizer = learner_of(model, training), make_optimizer(model, training)
    DeadZoneWarmup(model, Budget(10), 0.5).on_step_begin(None, _AtStep(2), None)
    tokens = tokens_of(model, 2, 11)
    torch_step(model, optimizer, tokens, 1.0, training)
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


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("name", ["spikeloom-1m", "membrane, hard reset"])
def test_learning_rates_by_layer_are_those_of_pytorch(name, kind, whole_muon):
    training, model = replace(TRAINING, layer_decay=0.5, optimizer=kind), small_model(name)
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


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_learner_learns(kind):
    config = replace(small_model("spikeloom-1m").config.architecture, hidden_size=32)
    training = TrainingConfig(learning_rate=3e-3, target_active_share=0.3, optimizer=kind)
    learner = Learner(RunConfig(model=config, training=training))
    rows = np.tile(np.arange(10), (4, 3))
    first = learner.evaluate(rows)[0]
    for _ in range(30):
        loss, share = learner.step([rows], 1.0, 1.0)
    assert loss < 0.5 * first
    assert learner.evaluate(rows) == pytest.approx((loss, share), abs=0.5)
