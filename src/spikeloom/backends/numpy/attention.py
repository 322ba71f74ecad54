"""Three ways for a token to read the tokens before it, over all tokens at once.

Heads are `q` `[..., H_kv, G, L, K]`, `k` and `v` `[..., H_kv, 1, L, K]`: G query heads share one
key head, and broadcasting does the sharing. With A an L x L matrix, 0 above the diagonal:

    softmax      o = A v,         A = softmax(q k^T / sqrt(K))
    SDSA         o = A v,         A = (q k^T / sqrt(K)) * E      E[i, j] = exp(g[j+1] + ... + g[i])
    Hadamard     o = q * E(k v)

E is the decay from token j to token i >= j, g <= 0 the log decay of each token. Each function
returns its result and its way back, from the gradient of o to those of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spikeloom.backends.weights import Array

Back = Callable[[Array], tuple[Array, ...]]


def split_heads(x: Array, heads: int, groups: int) -> Array:
    """`[..., L, heads * groups * K]` to `[..., heads, groups, L, K]`."""
    x = x.reshape(*x.shape[:-1], heads, groups, -1)
    return np.moveaxis(x, -4, -2)


def merge_heads(x: Array) -> Array:
    """`[..., heads, groups, L, K]` to `[..., L, heads * groups * K]`."""
    x = np.moveaxis(x, -2, -4)
    return x.reshape(*x.shape[:-3], -1)


def rotate(x: Array, positions: Array, theta: float, back: bool = False) -> Array:
    """Rotary positions (Su et al. 2021): halves of `x` `[..., L, K]` turn by `position * angle`.

    A rotation's gradient is the rotation `back`. Angles are float32, as in the PyTorch model.
    """
    half = x.shape[-1] // 2
    exponents = np.arange(half, dtype=np.float32) / np.float32(half)
    angles = positions[:, None].astype(np.float32) * np.float32(theta) ** -exponents
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles if not back else -angles)
    a, b = x[..., :half], x[..., half:]
    sin = sin.astype(x.dtype)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def softmax_attention(q: Array, k: Array, v: Array, window: int | None) -> tuple[Array, Back]:
    """Each token attends to the last `window` tokens, itself included; None to all before it.

    Keys and values may reach further back than the queries, which are the last tokens.
    """
    L, n, scale = q.shape[-2], k.shape[-2], q.shape[-1] ** -0.5
    distance = np.arange(n - L, n)[:, None] - np.arange(n)
    seen = (distance >= 0) & (distance < (window or n))
    scores = np.where(seen, (q @ _t(k)) * scale, -np.inf)
    a = np.exp(scores - scores.max(-1, keepdims=True))
    a /= a.sum(-1, keepdims=True)

    def back(do: Array) -> tuple[Array, ...]:
        da = do @ _t(v)
        dscores = scale * a * (da - (da * a).sum(-1, keepdims=True))
        return dscores @ k, _shared(_t(dscores) @ q), _shared(_t(a) @ do)

    return a @ v, back


def sdsa(q: Array, k: Array, v: Array, g: Array) -> tuple[Array, Back]:
    """Spike-driven attention with log decay `g` `[..., H_kv, G, L]` (broadcast over the batch)."""
    scale = q.shape[-1] ** -0.5
    e, decay_back = decays(g)
    scores = (q @ _t(k)) * scale
    a = scores * e

    def back(do: Array) -> tuple[Array, ...]:
        da = do @ _t(v)
        dscores = scale * da * e
        dq, dk = dscores @ k, _shared(_t(dscores) @ q)
        return dq, dk, _shared(_t(a) @ do), decay_back(da * scores)

    return a @ v, back


def sdsa_hadamard(q: Array, k: Array, v: Array, g: Array) -> tuple[Array, Back]:
    """The seed's form: keys meet values elementwise, nothing is normalised."""
    e, decay_back = decays(g)
    kv = k * v
    m = e @ kv

    def back(do: Array) -> tuple[Array, ...]:
        dm = do * q
        dkv = _shared(_t(e) @ dm)
        return do * m, dkv * v, dkv * k, decay_back(dm @ _t(kv))

    return q * m, back


def decays(g: Array) -> tuple[Array, Callable[[Array], Array]]:
    """`E[i, j] = exp(G[i] - G[j])` for j <= i, else 0, with G the running sum of `g` `[..., L]`.

    The exponent is masked before the exponential: above the diagonal it would overflow.
    Back: `dG[i] = sum_j (dE * E)[i, j] - sum_j (dE * E)[j, i]`, and `dg[j] = sum_{i >= j} dG[i]`.
    """
    G = np.cumsum(g, axis=-1)
    causal = np.tri(g.shape[-1], dtype=bool)
    e = np.exp(np.where(causal, G[..., :, None] - G[..., None, :], -np.inf))

    def back(de: Array) -> Array:
        de = de.reshape(-1, *e.shape).sum(0) * e  # the batch shares a decay that is not gated
        dG = de.sum(-1) - de.sum(-2)
        return np.cumsum(dG[..., ::-1], axis=-1)[..., ::-1]

    return e, back


def _t(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def _shared(dx: Array) -> Array:
    """The gradient of keys or values that G query heads share."""
    return dx.sum(-3, keepdims=True)
