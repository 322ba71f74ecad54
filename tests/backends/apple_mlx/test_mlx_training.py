"""One update in MLX is one update in PyTorch: optimizer, groups, clipping, pressure, warm-up."""

from dataclasses import replace

import numpy as np
import pytest
import torch

mx = pytest.importorskip("mlx.core", reason="needs `pip install 'spikeloom[mlx]'`")

from mlx.utils import tree_flatten  # noqa: E402
from parity import reference, small_model, tokens_of, torch_step, weights_of  # noqa: E402

from spikeloom.backends.mlx import training  # noqa: E402
from spikeloom.backends.mlx.checkpoint import from_numpy  # noqa: E402
from spikeloom.backends.mlx.training import LayerwiseAdamW, Learner, compiler  # noqa: E402
from spikeloom.config import RunConfig, TrainingConfig  # noqa: E402
from spikeloom.training.budget import Budget  # noqa: E402
from spikeloom.training.dead_zone import DeadZoneWarmup  # noqa: E402
from spikeloom.training.layer_rates import layer_factors  # noqa: E402
from spikeloom.training.optimizers import make_optimizer  # noqa: E402

pytestmark = pytest.mark.mlx

TRAINING = TrainingConfig(
    learning_rate=1e-2, weight_decay=0.3, clip=0.1, target_active_share=0.01, rate_weight=3.0
)
NAMES = ["spikeloom-1m", "gated sdsa", "spike-transformer", "flow-15m", "membrane, hard reset"]


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


@pytest.mark.parametrize("name", NAMES)
def test_an_update_is_that_of_pytorch(name):
    model = small_model(name, torch.float32)
    learner, tokens, before = learner_of(model), tokens_of(model, 2, 11), weights_of(model)
    said = torch_step(model, make_optimizer(model, TRAINING), tokens, 0.5, TRAINING)
    loss, share = learner.step([tokens], 0.5, 1.0)
    assert (loss, share) == pytest.approx((said.loss, said.share), abs=1e-4)
    assert_same_update(before, weights_in(learner.model), weights_of(model), said.grads)


def test_half_open_dead_zones_train_as_in_pytorch_without_pressure():
    training = replace(TRAINING, dead_zone_warmup=0.5)
    model = small_model("spikeloom-1m", torch.float32)
    learner, before = learner_of(model, training), weights_of(model)
    tokens = tokens_of(model, 2, 11)
    open_now = learner.evaluate(tokens)
    DeadZoneWarmup(model, Budget(10), 0.5).on_step_begin(None, _AtStep(2), None)
    said = torch_step(model, make_optimizer(model, training), tokens, 1.0, training, target=False)
    loss, share = learner.step([tokens], 1.0, 0.2)
    assert (loss, share) == pytest.approx((said.loss, said.share), abs=1e-4)
    assert abs(share - open_now[1]) > 0.05
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


def test_learning_rates_by_layer_are_those_of_adamw_with_a_group_each():
    model = small_model("spikeloom-1m", torch.float32)
    training = replace(TRAINING, clip=1e9, layer_decay=0.5)
    ours = from_numpy(model.config.architecture, weights_of(model))
    optimizer, named = LayerwiseAdamW(ours, training), dict(model.named_parameters())
    factors = layer_factors(weights_of(model), 0.5)
    assert len(set(factors.values())) == 4
    groups = [
        {"params": [p], "lr": 1e-2 * factors[n], "weight_decay": 0.3 if p.ndim == 2 else 0.0}
        for n, p in named.items()
    ]
    theirs = torch.optim.AdamW(groups, betas=TRAINING.betas)
    from mlx.utils import tree_unflatten

    assert {g["lr"] for g in make_optimizer(model, training).param_groups} == {
        1e-2 * factor for factor in factors.values()
    }
    for seed in range(3):
        said = reference(model, tokens_of(model, 2, 7, seed=seed))
        theirs.step()
        optimizer.step(tree_unflatten([(k, mx.array(g)) for k, g in said.grads.items()]))
    for key, expected in weights_of(model).items():
        np.testing.assert_allclose(weights_in(ours)[key], expected, atol=2e-5, err_msg=key)


@pytest.mark.slow
def test_compiled_updates_are_those_of_pytorch(compiled, monkeypatch):
    asked = replace(TRAINING, compile=True)
    monkeypatch.setattr(f"{__name__}.TRAINING", asked)
    test_an_update_is_that_of_pytorch("spikeloom-1m")
    test_half_open_dead_zones_train_as_in_pytorch_without_pressure()


def test_it_compiles_where_that_is_asked_for_or_pays(monkeypatch):
    assert compiler(replace(TRAINING, compile=True)) is mx.compile
    monkeypatch.setattr(training, "on_gpu", lambda: False)
    assert compiler(TRAINING)(abs, inputs=[]) is abs
    monkeypatch.setattr(training, "on_gpu", lambda: True)
    assert compiler(TRAINING) is mx.compile


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_learner_learns(dtype):
    config = replace(small_model("spikeloom-1m").config.architecture, hidden_size=32)
    training = TrainingConfig(learning_rate=3e-3, target_active_share=0.3, dtype=dtype)
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
