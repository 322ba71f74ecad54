"""One update in MLX is one update in PyTorch: optimizer, groups, clipping, pressure, warm-up."""

from dataclasses import replace

import numpy as np
import pytest
import torch

mx = pytest.importorskip("mlx.core", reason="needs `pip install 'spikeloom[mlx]'`")

from mlx import nn  # noqa: E402
from mlx.utils import tree_flatten, tree_unflatten  # noqa: E402
from parity import TRAINED, reference, small_model, tokens_of, torch_step, weights_of  # noqa: E402

from spikeloom.backends.mlx import training  # noqa: E402
from spikeloom.backends.mlx.checkpoint import from_numpy  # noqa: E402
from spikeloom.backends.mlx.training import GroupedOptimizer, Learner, compiler  # noqa: E402
from spikeloom.config import RunConfig, TrainingConfig  # noqa: E402
from spikeloom.training.budget import Budget  # noqa: E402
from spikeloom.training.dead_zone import DeadZoneWarmup  # noqa: E402
from spikeloom.training.optimizers import make_optimizer  # noqa: E402

pytestmark = pytest.mark.mlx

TRAINING = TrainingConfig(
    learning_rate=1e-2, weight_decay=0.3, clip=0.1, target_active_share=0.01, rate_weight=3.0
)
CLOSE_MUON = 2e-6  # three moves of about 1e-3 in float32


def learner_of(model, training=TRAINING):
    learner = Learner(RunConfig(model=model.config.architecture, training=training))
    learner.model.load_weights([(k, mx.array(w)) for k, w in weights_of(model).items()])
    return learner


def weights_in(model):
    return {name: np.array(w) for name, w in tree_flatten(model.parameters())}


def assert_same_update(before, found, expected, gradients):
    """Adam's first update is the sign of the gradient: it says little where there is none."""
    for key, wanted in expected.items():
        told = np.abs(gradients[key]) > 1e-5
        assert told.any(), key
        np.testing.assert_allclose(found[key][told], wanted[told], atol=5e-6, rtol=0, err_msg=key)
        assert np.abs(found[key] - before[key]).max() > 0, key


@pytest.fixture
def whole_muon(monkeypatch):
    """PyTorch's Muon orthogonalises in the type of the weights, not in bfloat16."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("name", TRAINED)
def test_an_update_is_that_of_pytorch(name, kind, whole_muon):
    model, training = small_model(name, torch.float32), replace(TRAINING, optimizer=kind)
    learner, before = learner_of(model, training), weights_of(model)
    tokens = tokens_of(model, 2, 11)
    said = torch_step(model, make_optimizer(model, training), tokens, 0.5, training)
    loss, share = learner.step([tokens], 0.5, 1.0)
    assert (loss, share) == pytest.approx((said.loss, said.share), abs=1e-4)
    assert_same_update(before, weights_in(learner.model), weights_of(model), said.grads)


def test_half_open_dead_zones_train_as_in_pytorch():
    training = replace(TRAINING, dead_zone_warmup=0.5)
    model = small_model("spikeloom-1m", torch.float32)
    learner, before = learner_of(model, training), weights_of(model)
    tokens = tokens_of(model, 2, 11)
    open_now = learner.evaluate(tokens)
    DeadZoneWarmup(model, Budget(10), 0.5).on_step_begin(None, _AtStep(2), None)
    said = torch_step(model, make_optimizer(model, training), tokens, 1.0, training)
    loss, share = learner.step([tokens], 1.0, 0.2)
    assert (loss, share) == pytest.approx((said.loss, said.share), abs=1e-4)
    assert abs(loss - open_now[0]) > 1e-3  # more is sent than by the whole dead zone
    assert_same_update(before, weights_in(learner.model), weights_of(model), said.grads)


class _AtStep:
    def __init__(self, step):
        self.global_step = step


def test_accumulated_batches_count_as_one():
    model = small_model("spikeloom-1m", torch.float32)
    tokens = tokens_of(model, 4, 11)
    whole, halves = learner_of(model), learner_of(model)
    found = halves.step([tokens[:2], tokens[2:]], 1.0, 1.0)
    assert found == pytest.approx(whole.step([tokens], 1.0, 1.0), abs=1e-5)
    expected = weights_in(whole.model)
    for key, weight in weights_in(halves.model).items():
        assert np.mean(np.abs(weight - expected[key]) < 1e-5) > 0.98, key


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_learning_rates_by_layer_are_those_of_pytorch(kind, whole_muon):
    model = small_model("spikeloom-1m", torch.float32)
    training = replace(TRAINING, clip=1e9, layer_decay=0.5, optimizer=kind)
    ours = from_numpy(model.config.architecture, weights_of(model))
    optimizer, theirs = GroupedOptimizer(ours, training), make_optimizer(model, training)
    assert len({group["lr"] for group in theirs.param_groups}) == 4
    for seed in range(3):
        said = reference(model, tokens_of(model, 2, 7, seed=seed))
        theirs.step()
        optimizer.step(tree_unflatten([(k, mx.array(g)) for k, g in said.grads.items()]))
    for key, expected in weights_of(model).items():
        np.testing.assert_allclose(weights_in(ours)[key], expected, atol=2e-5, err_msg=key)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (24, 24), (1, 30)])
def test_muon_on_tall_and_wide_matrices_is_that_of_pytorch(shape, whole_muon):
    """Several updates, a matrix beside it, and both sides of PyTorch's own rule for its size."""
    rng = np.random.default_rng(0)
    start, *steps = (rng.standard_normal(shape).astype(np.float32) for _ in range(4))
    both = Matrices(start)
    optimizer = GroupedOptimizer(both, replace(TRAINING, optimizer="muon", clip=1e9))
    theirs = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in (start, start.T)]
    settings = {"weight_decay": 0.3, "adjust_lr_fn": "match_rms_adamw"}
    muon = torch.optim.Muon(theirs, lr=0.5e-2, **settings)
    for g in steps:
        optimizer.step({"up": mx.array(g), "down": mx.array(g.T)}, 0.5)
        for parameter, gradient in zip(theirs, (g, g.T), strict=True):
            parameter.grad = torch.from_numpy(gradient.copy())
        muon.step()
    for ours, expected in zip((both.up, both.down), theirs, strict=True):
        np.testing.assert_allclose(
            np.array(ours), expected.detach().numpy(), atol=CLOSE_MUON, rtol=0
        )


class Matrices(nn.Module):
    """A matrix, and its transpose: one is tall where the other is wide."""

    def __init__(self, start):
        super().__init__()
        self.up, self.down = mx.array(start), mx.array(start.T)


@pytest.mark.slow
def test_compiled_updates_are_those_of_pytorch(compiled, monkeypatch, whole_muon):
    asked = replace(TRAINING, compile=True)
    monkeypatch.setattr(f"{__name__}.TRAINING", asked)
    test_an_update_is_that_of_pytorch("spikeloom-1m", "muon", whole_muon)
    test_half_open_dead_zones_train_as_in_pytorch()


def test_it_compiles_where_that_is_asked_for_or_pays(monkeypatch):
    assert compiler(replace(TRAINING, compile=True)) is mx.compile
    monkeypatch.setattr(training, "on_gpu", lambda: False)
    assert compiler(TRAINING)(abs, inputs=[]) is abs
    monkeypatch.setattr(training, "on_gpu", lambda: True)
    assert compiler(TRAINING) is mx.compile


@pytest.mark.parametrize(
    ("kind", "dtype"), [("adamw", "float32"), ("adamw", "bfloat16"), ("muon", "float32")]
)
def test_a_learner_learns(kind, dtype):
    config = replace(small_model("spikeloom-1m").config.architecture, hidden_size=32)
    training = TrainingConfig(
        learning_rate=3e-3, target_active_share=0.3, dtype=dtype, optimizer=kind
    )
    learner = Learner(RunConfig(model=config, training=training))
    rows = np.tile(np.arange(10), (4, 3))
    first = learner.evaluate(rows)[0]
    for _ in range(30):
        loss, share = learner.step([rows], 1.0, 1.0)
    assert loss < 0.5 * first
    assert learner.evaluate(rows) == pytest.approx((loss, share), abs=0.5)
    assert {w.dtype for w in weights_in(learner.model).values()} == {np.dtype("float32")}


def test_bfloat16_products_are_close_to_those_of_float32():
    model = small_model("spikeloom-1m", torch.float32)
    tokens = tokens_of(model, 2, 11)
    found = [
        learner_of(model, replace(TRAINING, dtype=dtype)).evaluate(tokens)[0]
        for dtype in ("float32", "bfloat16")
    ]
    assert found[0] != found[1]
    assert found[0] == pytest.approx(found[1], abs=0.3)
