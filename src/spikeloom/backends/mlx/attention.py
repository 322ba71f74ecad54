"""Three ways for a token to read the tokens before it; state comes in and goes out.

Heads are `q` `[T, B, H_kv, G, L, K]`, `k` and `v` `[T, B, H_kv, 1, L, K]`: G query heads share one
key head. With `g <= 0` the log decay of each token, and G[i] its running sum:

    softmax     o = softmax(q k^T / sqrt(K)) v
    SDSA        M[t] = exp(g[t]) M[t-1] + k[t]^T v[t]     o[t] = q[t] M[t] / sqrt(K)
    Hadamard    m[t] = exp(g[t]) m[t-1] + k[t] * v[t]     o[t] = q[t] * m[t]

All tokens of a call are computed at once: what lies among them through the decays
`E[i, j] = exp(G[i] - G[j])`, what came before through the state, decayed by `exp(G[i])`.
"""

from __future__ import annotations

import mlx.core as mx


def split_heads(x: mx.array, heads: int, groups: int) -> mx.array:
    """`[..., L, heads * groups * K]` to `[..., heads, groups, L, K]`."""
    x = x.reshape(*x.shape[:-1], heads, groups, -1)
    return mx.moveaxis(x, -4, -2)


def merge_heads(x: mx.array) -> mx.array:
    """`[..., heads, groups, L, K]` to `[..., L, heads * groups * K]`."""
    x = mx.moveaxis(x, -2, -4)
    return x.reshape(*x.shape[:-3], -1)


def softmax_attention(q: mx.array, k: mx.array, v: mx.array, window: int | None) -> mx.array:
    """Each token attends to the last `window` tokens, itself included; None to all before it.

    Keys and values `[T, B, H_kv, 1, n, K]` may reach further back than the L queries, which are the
    last tokens.
    """
    T, B, heads, groups, L, K = q.shape
    n = k.shape[-2]
    distance = mx.arange(n - L, n)[:, None] - mx.arange(n)
    seen = (distance >= 0) & (distance < (window or n))
    out = mx.fast.scaled_dot_product_attention(
        q.reshape(T * B, heads * groups, L, K),
        k.reshape(T * B, heads, n, K),
        v.reshape(T * B, heads, n, K),
        scale=K**-0.5,
        mask=seen,
    )
    return out.reshape(q.shape)


def sdsa(
    q: mx.array, k: mx.array, v: mx.array, g: mx.array, state: mx.array | None
) -> tuple[mx.array, mx.array]:
    """Spike-driven attention, and the state M `[T, B, H_kv, G, K, K]` after the last token.

    Args:
        q, k, v: heads.
        g: log decays, `[..., H_kv, G, L]`, broadcast over the batch.
        state: M before the first token; None where nothing was read.
    """
    scale, (e, G) = q.shape[-1] ** -0.5, decays(g)
    out = ((q @ _t(k)) * (scale * e)) @ v
    to_end = mx.exp(G[..., -1:] - G)[..., None]
    last = _t(k * to_end) @ v
    if state is not None:
        out = out + (q @ state) * (scale * mx.exp(G)[..., None])
        last = last + mx.exp(G[..., -1])[..., None, None] * state
    return out, last


def sdsa_hadamard(
    q: mx.array, k: mx.array, v: mx.array, g: mx.array, state: mx.array | None
) -> tuple[mx.array, mx.array]:
    """The seed's form, and the state m `[T, B, H_kv, G, 1, K]` after the last token."""
    e, G = decays(g)
    m = e @ (k * v)
    if state is not None:
        m = m + mx.exp(G)[..., None] * state
    return q * m, m[..., -1:, :]


def decays(g: mx.array) -> tuple[mx.array, mx.array]:
    """`E[i, j] = exp(G[i] - G[j])` for j <= i, else 0, and the running sum G, of `g` `[..., L]`.

    The exponent is masked before the exponential: above the diagonal it would overflow.
    """
    G = mx.cumsum(g, axis=-1)
    index = mx.arange(g.shape[-1])
    causal = index[:, None] >= index
    difference = mx.where(causal, G[..., :, None] - G[..., None, :], -mx.inf)
    return mx.exp(difference), G


def _t(x: mx.array) -> mx.array:
    return mx.swapaxes(x, -1, -2)
