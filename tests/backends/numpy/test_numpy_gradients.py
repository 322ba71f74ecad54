"""The hand-derived way back against finite differences, with every spike replaced by its proxy.

A surrogate slope is the derivative of a smooth proxy. With the proxy in the forward pass too, the
written-out gradient must be the true one: of every weight, through membranes, resets and mixers.
"""

import numpy as np
import pytest
import torch
from parity import small_model, tokens_of, weights_of

from spikeloom.backends.numpy import layers, neurons
from spikeloom.backends.numpy.decoder import Decoder, loss_and_gradients
from spikeloom.ops.surrogate import PROXIES, SLOPES

STEP = 1e-6
ROUNDING = 2e-9  # a few last places of the loss, over two steps
SMOOTH = [
    "lif, soft reset",
    "membrane, soft reset",
    "hadamard, soft reset",
    "gated sdsa",
    "gains",
    "flow-15m",
    "spikeloom-1m",
]


def proxy(v, theta, c):
    """What `neurons.slope` is the derivative of."""
    if c.kind == "lif":
        return PROXIES[c.surrogate](torch.from_numpy(v - c.v_threshold)).numpy()
    u, opens = v / theta, np.ceil(c.window * c.fire_level) - 0.5
    size = (np.abs(u) if c.signed else u).clip(opens, c.levels + 0.5) - opens
    return size * (np.sign(u) if c.signed else 1)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_the_finite_differences_of_the_smooth_model(name, monkeypatch):
    monkeypatch.setattr(neurons, "spike", proxy)
    model = small_model(name)
    w, config = weights_of(model), model.config.architecture
    tokens = tokens_of(model, 2, 6)
    targets = layers.next_tokens(tokens)
    grads = loss_and_gradients(Decoder(config, w), tokens, targets)[2]
    rng = np.random.default_rng(0)
    for key in w:
        direction = rng.standard_normal(w[key].shape)
        direction /= np.linalg.norm(direction)
        losses = []
        for sign in (1, -1):
            moved = w | {key: w[key] + sign * STEP * direction}
            losses.append(
                layers.cross_entropy(Decoder(config, moved).forward(tokens).logits, targets)[0]
            )
        slope = (losses[0] - losses[1]) / (2 * STEP)
        assert abs(slope) > 1e-7, key  # there is something to compare
        assert np.sum(grads[key] * direction) == pytest.approx(slope, rel=1e-4, abs=ROUNDING), key


@pytest.mark.parametrize("surrogate", SLOPES)
def test_surrogate_slopes_are_those_of_pytorch(surrogate):
    u = np.linspace(-3, 3, 301)
    expected = SLOPES[surrogate](torch.from_numpy(u)).numpy()
    np.testing.assert_allclose(neurons.SLOPES[surrogate](u), expected, rtol=1e-9, atol=1e-12)
