"""The parts between neurons: products, norm, gain, activations, loss. Each returns its way back.

`pull(dy, grads)` gives the gradient of the input, and writes those of the weights to `grads` under
their names in `model.safetensors`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spikeloom.backends.weights import Array, Weights

Pull = Callable[..., Array]  # from the gradient of a result to that of its argument
IGNORED = -100  # a target that is not scored


def linear(y: Array, w: Weights, name: str) -> tuple[Array, Pull]:
    """`z = W y` per token, W `[d_out, d_in]`. Back: `dy = W^T dz`, `dW += dz y^T`."""
    matrix = w[name]

    def pull(dz: Array, grads: Weights) -> Array:
        add(grads, name, _rows(dz).T @ _rows(y))
        return (_rows(dz) @ matrix).reshape(y.shape)

    return (_rows(y) @ matrix.T).reshape(*y.shape[:-1], -1), pull


def rms_norm(x: Array, w: Weights, name: str, eps: float) -> tuple[Array, Pull]:
    """`y = gain * n`, `n = r x`, `r = 1 / sqrt(mean(x^2) + eps)` (Zhang and Sennrich 2019).

    Back, with `dn = gain * dy`: `dx = r (dn - n mean(dn n))`, 0 in a row of zeros;
    `dgain = sum dy n`.
    """
    gain = w[f"{name}.weight"]
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    n = r * x

    def pull(dy: Array, grads: Weights) -> Array:
        add(grads, f"{name}.weight", channels(dy * n))
        dn = dy * gain * n.any(axis=-1, keepdims=True)
        return r * (dn - n * np.mean(dn * n, axis=-1, keepdims=True))

    return gain * n, pull


def context_gain(x: Array, w: Weights, name: str) -> tuple[Array, Pull]:
    """`y = g x`, `g = 2 sigmoid(z) = 1 + tanh(z / 2)`, `z = U V x + c` (`spikeloom.neurons.gain`).

    Back: `dz = g (2 - g) / 2 * x dy`, `dc = sum dz`, `dx = g dy + V^T U^T dz`.
    """
    context, narrow_pull = linear(x, w, f"{name}.narrow")
    z, widen_pull = linear(context, w, f"{name}.widen")
    g = 1 + np.tanh(0.5 * (z + w[f"{name}.bias"]))

    def pull(dy: Array, grads: Weights) -> Array:
        dz = 0.5 * g * (2 - g) * x * dy
        grads[f"{name}.bias"] = channels(dz)
        return g * dy + narrow_pull(widen_pull(dz, grads), grads)

    return g * x, pull


def squared_relu(u: Array) -> tuple[Array, Callable[[Array], Array]]:
    """`relu(u)^2` (So et al. 2021)."""
    r = np.maximum(u, 0)
    return r * r, lambda dh: 2 * r * dh


def silu_gate(gate: Array, up: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """`silu(gate) * up`, `silu(x) = x sigmoid(x)` (Shazeer 2020)."""
    sigmoid = 0.5 * (1 + np.tanh(0.5 * gate))  # does not overflow
    silu = gate * sigmoid
    slope = sigmoid * (1 + gate * (1 - sigmoid))
    return silu * up, lambda dh: (dh * up * slope, dh * silu)


def cross_entropy(logits: Array, targets: Array) -> tuple[float, Array]:
    """Mean `-log softmax(logits)[target]` in nats over the targets that count, and its gradient.

    Args:
        logits: `[B, L, V]`.
        targets: the token to come after each, `[B, L]`; `IGNORED` where nothing is asked.
    """
    scored = targets != IGNORED
    shifted = logits - logits.max(-1, keepdims=True)
    p = np.exp(shifted)
    total = p.sum(-1, keepdims=True)
    index = np.where(scored, targets, 0)[..., None]
    losses = np.log(total) - np.take_along_axis(shifted, index, -1)
    p /= total
    np.put_along_axis(p, index, np.take_along_axis(p, index, -1) - 1, -1)
    count = scored.sum()
    loss = float((losses[..., 0] * scored).sum() / count)
    return loss, p * (scored / count)[..., None].astype(p.dtype)


def next_tokens(tokens: Array) -> Array:
    """The targets of a text `[B, L]`: every token's successor, nothing after the last."""
    return np.concatenate([tokens[:, 1:], np.full_like(tokens[:, :1], IGNORED)], axis=1)


def add(grads: Weights, name: str, value: Array) -> None:
    """A weight that is used twice (the tied head) gets the sum of both gradients."""
    grads[name] = grads[name] + value if name in grads else value


def channels(x: Array) -> Array:
    """Sum over all axes but the channels `[D]`."""
    return _rows(x).sum(0)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])
