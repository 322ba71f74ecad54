"""One set of weights in NumPy and in PyTorch: the same logits, spikes, losses and gradients."""

import numpy as np
import pytest
import torch
from parity import NAMES, assert_grads_close, reference, small_model, tokens_of, weights_of

from spikeloom.backends.numpy import neurons
from spikeloom.backends.numpy.decoder import Decoder, loss_and_gradients
from spikeloom.backends.numpy.layers import next_tokens
from spikeloom.backends.weights import initial_weights, layout, roles

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def pasts(monkeypatch):
    """What every scan remembered, in order of computation."""
    seen, scan = [], neurons.scan

    def spy(*args, **kwargs):
        seen.append(scan(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(neurons, "scan", spy)
    return seen


# Rotary angles are float32 in both, rates are float32 in PyTorch: float64 agrees to 1e-6.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-6)])
def test_logits_losses_and_gradients_agree(name, dtype, tolerance):
    model = small_model(name, DTYPES[dtype])
    tokens, target = tokens_of(model, 2, 13), 0.01
    expected = reference(model, tokens, target)
    w, config = weights_of(model), model.config.architecture
    out = Decoder(config, w).forward(tokens)
    assert out.logits.dtype == dtype
    np.testing.assert_allclose(out.logits, expected.logits, atol=tolerance, rtol=0)
    loss, share, grads = loss_and_gradients(Decoder(config, w), tokens, next_tokens(tokens), target)
    assert loss == pytest.approx(expected.loss, abs=tolerance)
    assert share == pytest.approx(expected.share, abs=1e-6)
    assert_grads_close(grads, expected.grads, tolerance)


def test_without_pressure_the_gradient_is_that_of_the_cross_entropy(name):
    """Exactly, where PyTorch has no rotary angles to round."""
    model = small_model(name)
    rotary = any(layer.mixer == "attention" for layer in model.config.architecture.layer_list)
    tokens = tokens_of(model, 2, 9)
    w, config, targets = weights_of(model), model.config.architecture, next_tokens(tokens)
    expected = reference(model, tokens).grads
    for target in (None, 1.1):  # no target, and one that is never passed
        grads = loss_and_gradients(Decoder(config, w), tokens, targets, target)[2]
        assert_grads_close(grads, expected, 1e-6 if rotary else 1e-12)


def test_spikes_agree_away_from_the_threshold(name, pasts):
    model = small_model(name, torch.float32)
    tokens = tokens_of(model, 2, 13)
    config, w = model.config.architecture, weights_of(model)
    expected = reference(model, tokens).payloads
    Decoder(config, w).forward(tokens)
    spiking = [k for k, (neuron, _, _) in roles(config).items() if neuron.kind != "none"]
    assert spiking == list(expected)
    for past, (key, payloads) in zip(pasts, expected.items(), strict=True):
        c = roles(config)[key][0]
        theta = neurons.constants(w, key, c)[0]
        # [S, ...] to [B, T, L, D]
        tokens_first = config.num_steps == 1 and not c.memoryless
        s, v = (np.moveaxis(x, 0, 2) if tokens_first else x for x in (past.s, past.v))
        u = v - c.v_threshold if c.kind == "lif" else v / theta - np.floor(v / theta) - 0.5
        clear = np.moveaxis(np.abs(u) > 1e-4, 0, 1)
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(np.moveaxis(s, 0, 1)[clear], payloads[clear], err_msg=key)


def test_weights_have_the_names_shapes_and_spread_of_the_torch_model(name):
    model = small_model(name)
    config = model.config.architecture
    assert {k: shape for k, (shape, _, _) in layout(config).items()} == {
        k: tuple(p.shape) for k, p in model.named_parameters()
    }
    fresh = type(model)(model.config)  # at its initial weights
    ours = initial_weights(config)
    for key, parameter in fresh.named_parameters():
        theirs = parameter.detach().numpy()
        if parameter.ndim == 1:
            np.testing.assert_allclose(ours[key], theirs, rtol=1e-6, err_msg=key)
        else:
            assert ours[key].std() == pytest.approx(theirs.std(), rel=5 / np.sqrt(theirs.size)), key


def test_the_targets_of_a_text_are_its_next_tokens():
    np.testing.assert_array_equal(next_tokens(np.array([[5, 6, 7]])), [[6, 7, -100]])
