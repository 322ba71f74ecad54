"""One set of weights in MLX, NumPy and PyTorch: the same logits, spikes, losses and gradients."""

import numpy as np
import pytest
import torch

mx = pytest.importorskip("mlx.core", reason="needs `pip install 'spikeloom[mlx]'`")

from mlx.utils import tree_flatten  # noqa: E402
from parity import (  # noqa: E402
    NAMES,
    assert_grads_close,
    greedy_tokens,
    reference,
    small_model,
    tokens_of,
    weights_of,
)

from spikeloom.backends.mlx import neurons  # noqa: E402
from spikeloom.backends.mlx.checkpoint import from_numpy  # noqa: E402
from spikeloom.backends.mlx.decoder import RMSNorm  # noqa: E402
from spikeloom.backends.mlx.training import losses  # noqa: E402
from spikeloom.backends.numpy.decoder import Decoder  # noqa: E402
from spikeloom.backends.numpy.layers import rms_norm  # noqa: E402
from spikeloom.backends.weights import roles  # noqa: E402

pytestmark = pytest.mark.mlx


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def ours_of(model):
    return from_numpy(model.config.architecture, weights_of(model))


def test_a_silent_row_passes_no_gradient_through_a_norm():
    norm, x = RMSNorm(8, 1e-6), np.random.default_rng(0).standard_normal((3, 8))
    x[1] = 0
    upstream = np.cos(np.arange(24.0)).reshape(3, 8)
    found = mx.grad(lambda x: (norm(x) * mx.array(upstream)).sum())(mx.array(x))
    expected = rms_norm(x, {"n.weight": np.ones(8)}, "n", 1e-6)[1](upstream, {})
    assert not expected[1].any()
    np.testing.assert_allclose(np.array(found), expected, atol=1e-5)


def test_logits_losses_and_gradients_agree(name):
    model = small_model(name, torch.float32)
    tokens, target = tokens_of(model, 2, 13), 0.01
    expected = reference(model, tokens, target)
    ours = ours_of(model)
    out = ours.forward(mx.array(tokens))
    np.testing.assert_allclose(np.array(out.logits), expected.logits, atol=1e-4, rtol=0)
    numpy = Decoder(model.config.architecture, weights_of(model)).forward(tokens)
    np.testing.assert_allclose(np.array(out.logits), numpy.logits, atol=1e-4, rtol=0)
    np.testing.assert_allclose(np.array(out.rates), numpy.rates, atol=1e-6)
    loss, share, grads = gradients(ours, tokens, target)
    assert loss == pytest.approx(expected.loss, abs=1e-4)
    assert share == pytest.approx(expected.share, abs=1e-6)
    assert_grads_close(grads, expected.grads, 1e-4)


def gradients(ours, tokens, target):
    from mlx import nn

    total = nn.value_and_grad(ours, lambda rows: losses(ours, rows, target, 2.0))
    (_, loss, share), grads = total(mx.array(tokens))
    return loss.item(), share.item(), {k: np.array(g) for k, g in tree_flatten(grads)}


def test_every_parameter_gets_a_gradient(name):
    """The seed's port never called its surrogate: most weights got none."""
    model = small_model(name, torch.float32)
    for target in (None, 0.01):  # the cross-entropy alone must reach them, too
        found = gradients(ours_of(model), tokens_of(model, 4, 16), target)[2]
        for key, gradient in found.items():
            assert np.abs(gradient).max() > 0, key


@pytest.fixture
def fired(monkeypatch):
    """Input, theta and what is sent of every neuron that spikes, in order of computation."""
    seen, call = [], neurons.Neuron.__call__

    def spy(self, x, *args):
        y, rate = call(self, x, *args)
        if self.config.kind != "none":
            theta = self.constants()[0] if self.config.kind == "graded" else 1
            seen.append(np.array(y / theta))
        return y, rate

    monkeypatch.setattr(neurons.Neuron, "__call__", spy)
    return seen


def test_spikes_agree(name, fired):
    """All of them: where one lies on the threshold, another rounding may decide otherwise."""
    model = small_model(name, torch.float32)
    tokens = tokens_of(model, 2, 13)
    expected = reference(model, tokens).payloads
    ours_of(model).forward(mx.array(tokens))
    spiking = [k for k, (c, _, _) in roles(model.config.architecture).items() if c.kind != "none"]
    assert spiking == list(expected)
    for s, (key, payloads) in zip(fired, expected.items(), strict=True):
        np.testing.assert_array_equal(np.rint(np.moveaxis(s, 0, 1)), payloads, err_msg=key)


def test_greedy_tokens_are_those_of_pytorch(name):
    model = small_model(name, torch.float32).eval()
    prompt = tokens_of(model, 1, 5)
    expected = greedy_tokens(model, prompt)
    ours = ours_of(model)
    cache, tokens, found = ours.make_cache(), mx.array(prompt), []
    for _ in range(12):
        tokens = ours(tokens, cache)[:, -1:].argmax(-1)
        found.append(tokens.item())
    assert found == expected
