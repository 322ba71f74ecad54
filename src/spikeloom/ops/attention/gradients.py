"""Gradients of q, k and v in one launch, for heads whose whole state fits into a program.

From the states at the borders of the segments (`kernels`: M before a segment, dM behind it) a
segment is walked through twice, with the states of its chunks in registers:

    dq = scan(do, v, k)    forwards, with M
    dk = scan(v, do, q)    backwards, with dM, and in the same steps
    dv = scan(k, q, do)

Four inputs are read for three gradients, where a scan each would read ten. The two walks have
programs of their own, side by side, so that what one reads is still in the cache for the other.
"""

from __future__ import annotations

import triton
import triton.language as tl

from spikeloom.ops.attention.kernels import ANY_LENGTH


@triton.jit(do_not_specialize=ANY_LENGTH)
def gradients(
    q, k, v, d_out, dq, dk, dv, rows, decay, segment, states, d_states,
    q_strides, k_strides, v_strides, d_out_strides, dq_strides, dk_strides, dv_strides,
    H, L, N,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, SEGMENT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Program (walk, batch and head, segment).

    Args:
        q, k, dq, dk: `[B, H, L, K]`; v, d_out, dv: `[B, H, L, V]`; the last stride is 1.
        rows: `[2, B*H, N*C]` gets `q_t . dq_t` and `k_t . dk_t`.
        decay, segment: see `running_decays`; segment is None where no documents are packed.
        states, d_states: at the borders of segments, `[B*H, borders, K, V]`.
    """
    bh, part = tl.program_id(1).to(tl.int64), tl.program_id(2)
    batch, head = bh // H, bh % H
    q += batch * q_strides[0] + head * q_strides[1]
    k += batch * k_strides[0] + head * k_strides[1]
    v += batch * v_strides[0] + head * v_strides[1]
    d_out += batch * d_out_strides[0] + head * d_out_strides[1]
    decay += bh * N * C
    if segment is not None:
        segment += batch * N * C
    cell = tl.arange(0, K)[:, None] * V + tl.arange(0, V)[None, :]
    border = (bh * (tl.cdiv(N, SEGMENT) + 1) + part) * K * V + cell
    begin = part * SEGMENT
    end = tl.minimum(begin + SEGMENT, N)
    if tl.program_id(0) == 0:
        _of_queries(
            q, k, v, d_out, dq + batch * dq_strides[0] + head * dq_strides[1], rows + bh * N * C,
            decay, segment, tl.load(states + border), q_strides[2], k_strides[2], v_strides[2],
            d_out_strides[2], dq_strides[2], begin, end, L, K, V, C, PRECISION,
        )  # fmt: skip
    else:
        _of_keys_and_values(
            q, k, v, d_out, dk + batch * dk_strides[0] + head * dk_strides[1],
            dv + batch * dv_strides[0] + head * dv_strides[1],
            rows + (tl.num_programs(1) + bh) * N * C,
            decay, segment, tl.load(d_states + border + K * V), q_strides[2], k_strides[2],
            v_strides[2], d_out_strides[2], dk_strides[2], dv_strides[2], begin, end, L,
            K, V, C, PRECISION,
        )  # fmt: skip


@triton.jit
def _of_queries(
    q, k, v, d_out, dq, rows, decay, segment, state,
    q_stride, k_stride, v_stride, d_out_stride, dq_stride, begin, end, L,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`dq_i = sum_{j<=i} exp(G_i - G_j) (do_i . v_j) k_j + exp(G_i) do_i M^T`, chunk by chunk."""
    key, value = tl.arange(0, K)[None, :], tl.arange(0, V)[None, :]
    for n in range(begin, end):
        t = n * C + tl.arange(0, C)
        real = (t < L)[:, None]
        apart, arriving, leaving, kept = _decays(decay, segment, n, C, False)
        q_n = tl.load(q + t[:, None] * q_stride + key, mask=real, other=0.0)
        k_n = tl.load(k + t[:, None] * k_stride + key, mask=real, other=0.0)
        v_n = tl.load(v + t[:, None] * v_stride + value, mask=real, other=0.0)
        do_n = tl.load(d_out + t[:, None] * d_out_stride + value, mask=real, other=0.0)
        scores = tl.dot(do_n, tl.trans(v_n), input_precision=PRECISION) * tl.exp2(apart)
        dq_n = tl.dot(do_n, tl.trans(state.to(do_n.dtype)), input_precision=PRECISION)
        dq_n *= tl.exp2(arriving)[:, None]
        dq_n = tl.dot(scores.to(k_n.dtype), k_n, acc=dq_n, input_precision=PRECISION)
        tl.store(dq + t[:, None] * dq_stride + key, dq_n, mask=real)
        tl.store(rows + t, tl.sum(dq_n * q_n, 1))
        weighted = (v_n * tl.exp2(leaving)[:, None]).to(v_n.dtype)
        state *= tl.exp2(kept)
        state = tl.dot(tl.trans(k_n), weighted, acc=state, input_precision=PRECISION)


@triton.jit
def _of_keys_and_values(
    q, k, v, d_out, dk, dv, rows, decay, segment, d_state,
    q_stride, k_stride, v_stride, d_out_stride, dk_stride, dv_stride, begin, end, L,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """From the last chunk to the first, with `G_i - G_j` of queries i >= j:

    dk_j = sum_i exp(G_i - G_j) (v_j . do_i) q_i + exp(G_C - G_j) v_j dM^T
    dv_j = sum_i exp(G_i - G_j) (k_j . q_i) do_i + exp(G_C - G_j) k_j dM
    """
    key, value = tl.arange(0, K)[None, :], tl.arange(0, V)[None, :]
    for step in range(end - begin):
        n = end - 1 - step
        t = n * C + tl.arange(0, C)
        real = (t < L)[:, None]
        apart, arriving, leaving, kept = _decays(decay, segment, n, C, True)
        weights, leaves = tl.exp2(apart), tl.exp2(leaving)[:, None]
        q_n = tl.load(q + t[:, None] * q_stride + key, mask=real, other=0.0)
        k_n = tl.load(k + t[:, None] * k_stride + key, mask=real, other=0.0)
        v_n = tl.load(v + t[:, None] * v_stride + value, mask=real, other=0.0)
        do_n = tl.load(d_out + t[:, None] * d_out_stride + value, mask=real, other=0.0)
        rounded = d_state.to(k_n.dtype)
        scores = tl.dot(k_n, tl.trans(q_n), input_precision=PRECISION) * weights
        dv_n = tl.dot(k_n, rounded, input_precision=PRECISION) * leaves
        dv_n = tl.dot(scores.to(do_n.dtype), do_n, acc=dv_n, input_precision=PRECISION)
        tl.store(dv + t[:, None] * dv_stride + value, dv_n, mask=real)
        scores = tl.dot(v_n, tl.trans(do_n), input_precision=PRECISION) * weights
        dk_n = tl.dot(v_n, tl.trans(rounded), input_precision=PRECISION) * leaves
        dk_n = tl.dot(scores.to(q_n.dtype), q_n, acc=dk_n, input_precision=PRECISION)
        tl.store(dk + t[:, None] * dk_stride + key, dk_n, mask=real)
        tl.store(rows + t, tl.sum(dk_n * k_n, 1))
        weighted = (do_n * tl.exp2(arriving)[:, None]).to(do_n.dtype)
        d_state *= tl.exp2(kept)
        d_state = tl.dot(tl.trans(q_n), weighted, acc=d_state, input_precision=PRECISION)


@triton.jit
def _decays(decay, segment, n, C: tl.constexpr, BY_KEY: tl.constexpr):
    """Exponents, base 2: of query and key, from the chunk's begin, to its end, and all through.

    The first has a row for each query, or, `BY_KEY`, for each key; -inf where one is not seen.
    """
    i = tl.arange(0, C)
    t = n * C + i
    G = tl.load(decay + t)
    total = tl.load(decay + n * C + C - 1)
    if BY_KEY:
        seen, apart = i[None, :] >= i[:, None], G[None, :] - G[:, None]
    else:
        seen, apart = i[:, None] >= i[None, :], G[:, None] - G[None, :]
    arriving, leaving, kept = G, total - G, total
    if segment is not None:
        document = tl.load(segment + t)
        open_at_end = tl.load(segment + n * C + C - 1)
        seen = seen & (document[:, None] == document[None, :])
        arriving = tl.where(document == 0, arriving, float("-inf"))
        leaving = tl.where(document == open_at_end, leaving, float("-inf"))
        kept = tl.where(open_at_end == 0, kept, float("-inf"))
    return tl.where(seen, apart, float("-inf")), arriving, leaving, kept
