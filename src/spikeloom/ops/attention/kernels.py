"""Triton programs of causal SDSA: one scan over chunks of tokens serves outputs and gradients.

With `G` the running sum of the log decay within a chunk, the scan computes, chunk by chunk,

    out_i = sum_{j<=i} exp(G_i - G_j) (a_i . b_j) c_j + exp(G_i) a_i S
    S     = exp(G_C) S + sum_j exp(G_C - G_j) b_j c_j^T

and, `REVERSE`, the same from the last token to the first (`j >= i`, the two decays of the state
change places). Every tensor of the backward pass is such a scan (do: gradient of the outputs):

    o  = scan(q, k, v)    S = M, K x V           dv = reverse scan(k, q, do)   S = dM
    dq = scan(do, v, k)   S = M^T, V x K         dk = reverse scan(v, do, q)   S = dM^T

The tokens are cut into segments of `SEGMENT` chunks. The states at the borders of the segments are
kept, in float32, and nothing else: they let later scans run all segments at once (`resume`).
Decays are kept as powers of 2, and masked before the exponential (see `chunked`).
"""

from __future__ import annotations

import triton
import triton.language as tl

# exp(-110) is 0 in float32: clamping there changes nothing and keeps the running sums precise.
WEAKEST = tl.constexpr(-110.0)
LOG2_E = tl.constexpr(1.4426950408889634)
ANY_LENGTH = ["L", "N"]  # one program for all lengths: what compiles twice is waited for twice


@triton.jit(do_not_specialize=ANY_LENGTH)
def running_decays(log_decay, starts, decay, segment, strides, H, L, N, C: tl.constexpr):
    """Running sums of the log decay (base 2) and of document starts, within each chunk.

    Program (chunk, batch and head). `decay` `[B*H, N*C]` float32, `segment` `[B, N*C]` int32;
    behind the end the last value is repeated. `starts` is None where no documents are packed.
    """
    n, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    batch, head = bh // H, bh % H
    t = n * C + tl.arange(0, C)
    at = log_decay + batch * strides[0] + head * strides[1] + t * strides[2]
    g = tl.maximum(tl.load(at, mask=t < L, other=0.0).to(tl.float32), WEAKEST) * LOG2_E
    tl.store(decay + bh * N * C + t, tl.cumsum(g, 0))
    if starts is not None:
        begun = tl.load(starts + batch * L + t, mask=t < L, other=0).to(tl.int32)
        tl.store(segment + batch * N * C + t, tl.cumsum(begun, 0), mask=head == 0)


@triton.jit(do_not_specialize=ANY_LENGTH)
def scan(
    a,
    b,
    c,
    out,
    partner,
    rows,
    decay,
    segment,
    first,
    borders,
    last,
    a_strides,
    b_strides,
    c_strides,
    out_strides,
    partner_strides,
    state_strides,
    H,
    L,
    N,
    W: tl.constexpr,
    X: tl.constexpr,
    BX: tl.constexpr,
    C: tl.constexpr,
    SEGMENT: tl.constexpr,
    MODE: tl.constexpr,
    REVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The scan of the module's text. Program (block of X, batch and head, segment).

    Args:
        a, b: `[B, H, L, W]`; c, out: `[B, H, L, X]`; the last stride is 1.
        partner, rows: if given, `rows[block of X, B*H, N*C]` gets the products, summed over the
            block, of `out` (before it is rounded) and `partner` `[B, H, L, X]`.
        segment: None where no documents are packed.
        first: state before the scan, None for zeros; last: the one behind it.
        borders: states at the borders of segments, `[B*H, borders, K*V]`.
        state_strides: of a state's W and X, which is K x V or its transpose.
        MODE: `walk` runs through all tokens and writes borders and `last`; `resume` starts at the
            border of its segment; `gather` leaves there what its segment adds to a state, alone.
    """
    x = tl.program_id(0) * BX + tl.arange(0, BX)
    bh, part = tl.program_id(1).to(tl.int64), tl.program_id(2)
    batch, head = bh // H, bh % H
    i, w = tl.arange(0, C), tl.arange(0, W)
    a += batch * a_strides[0] + head * a_strides[1]
    b += batch * b_strides[0] + head * b_strides[1]
    c += batch * c_strides[0] + head * c_strides[1]
    if out is not None:
        out += batch * out_strides[0] + head * out_strides[1]
    if partner is not None:
        partner += batch * partner_strides[0] + head * partner_strides[1]
        rows += (tl.program_id(0) * tl.num_programs(1) + bh) * N * C
    decay += bh * N * C
    if segment is not None:
        segment += batch * N * C
    cell = w[:, None] * state_strides[0] + x[None, :] * state_strides[1]
    borders += bh * (tl.cdiv(N, SEGMENT) + 1) * W * X + cell

    begin = part * SEGMENT
    steps = N if MODE == "walk" else tl.minimum(SEGMENT, N - begin)
    if MODE == "resume":
        state = tl.load(borders + (part + REVERSE) * W * X)
    elif MODE == "walk" and first is not None:
        state = tl.load(first + bh * W * X + cell)
    else:
        state = tl.zeros([W, BX], tl.float32)

    for step in range(steps):
        n = begin + (steps - 1 - step) if REVERSE else begin + step
        t = n * C + i
        real = (t < L)[:, None]
        G = tl.load(decay + t)
        total = tl.load(decay + n * C + C - 1)
        apart = G[None, :] - G[:, None] if REVERSE else G[:, None] - G[None, :]
        seen = i[None, :] >= i[:, None] if REVERSE else i[:, None] >= i[None, :]
        arriving, leaving, kept = G, total - G, total
        if segment is not None:
            document = tl.load(segment + t)
            open_at_end = tl.load(segment + n * C + C - 1)
            seen = seen & (document[:, None] == document[None, :])
            arriving = tl.where(document == 0, arriving, float("-inf"))
            leaving = tl.where(document == open_at_end, leaving, float("-inf"))
            kept = tl.where(open_at_end == 0, kept, float("-inf"))
        if REVERSE:
            arriving, leaving = leaving, arriving
        if MODE == "walk":
            behind = n + REVERSE
            on_border = (behind % SEGMENT == 0) | (behind == N)
            tl.store(borders + tl.cdiv(behind, SEGMENT) * W * X, state, mask=on_border)

        if partner is not None:  # asked for early: it is not among the tiles that are prefetched
            at = partner + t[:, None] * partner_strides[2] + x[None, :]
            partner_n = tl.load(at, mask=real, other=0.0)
        b_n = tl.load(b + t[:, None] * b_strides[2] + w[None, :], mask=real, other=0.0)
        c_n = tl.load(c + t[:, None] * c_strides[2] + x[None, :], mask=real, other=0.0)
        if MODE != "gather":
            a_n = tl.load(a + t[:, None] * a_strides[2] + w[None, :], mask=real, other=0.0)
            scores = tl.dot(a_n, tl.trans(b_n), input_precision=PRECISION)
            scores *= tl.exp2(tl.where(seen, apart, float("-inf")))
            y = tl.dot(a_n, state.to(a_n.dtype), input_precision=PRECISION)
            y *= tl.exp2(arriving)[:, None]
            y = tl.dot(scores.to(c_n.dtype), c_n, acc=y, input_precision=PRECISION)
            tl.store(out + t[:, None] * out_strides[2] + x[None, :], y, mask=real)
            if partner is not None:
                tl.store(rows + t, tl.sum(y * partner_n, 1))
        weighted = (c_n * tl.exp2(leaving)[:, None]).to(c_n.dtype)
        state *= tl.exp2(kept)
        state = tl.dot(tl.trans(b_n), weighted, acc=state, input_precision=PRECISION)

    if MODE == "gather":
        tl.store(borders + (part + 1 - REVERSE) * W * X, state)
    if MODE == "walk":
        end = 0 if REVERSE else tl.cdiv(N, SEGMENT)
        tl.store(borders + end * W * X, state)
        tl.store(last + bh * W * X + cell, state)


@triton.jit(do_not_specialize=ANY_LENGTH)
def join_segments(
    decay,
    segment,
    first,
    borders,
    last,
    H,
    N,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    C: tl.constexpr,
    SEGMENT: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """States at the borders from what each segment adds alone.

    Program (block of K*V, batch and head).
    """
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    bh = tl.program_id(1).to(tl.int64)
    count = tl.cdiv(N, SEGMENT)
    borders += bh * (count + 1) * SIZE + cell
    ends = tl.arange(0, SEGMENT)
    if first is not None:
        state = tl.load(first + bh * SIZE + cell)
    else:
        state = tl.zeros([BLOCK], tl.float32)
    tl.store(borders + (count if REVERSE else 0) * SIZE, state)
    for step in range(count):
        part = count - 1 - step if REVERSE else step
        chunks = part * SEGMENT + ends
        at = chunks * C + C - 1
        kept = tl.sum(tl.load(decay + bh * N * C + at, mask=chunks < N, other=0.0), 0)
        if segment is not None:
            begun = tl.load(segment + bh // H * N * C + at, mask=chunks < N, other=0)
            kept = tl.where(tl.max(begun, 0) == 0, kept, float("-inf"))
        place = borders + (part + 1 - REVERSE) * SIZE
        state = state * tl.exp2(kept) + tl.load(place)
        tl.store(place, state)
    tl.store(last + bh * SIZE + cell, state)


@triton.jit(do_not_specialize=ANY_LENGTH)
def decay_gradient(
    query_rows,
    key_rows,
    segment,
    states,
    gradients,
    grad,
    H,
    L,
    N,
    BLOCKS: tl.constexpr,
    SIZE: tl.constexpr,
    C: tl.constexpr,
    SEGMENT: tl.constexpr,
):
    """`dg_t = sum_{i >= t} (q_i . dq_i - k_i . dk_i)` within a document.

    Program (segment, batch and head). `dg_t` counts every pair of a query i >= t and a key j < t.
    Summed up over all later tokens, the pairs behind t cancel only up to rounding, an error that
    grows with the length: the sum is taken over one segment, and what lies behind it is `<M, dM>`
    at its border.
    """
    part, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, cell = tl.arange(0, C), tl.arange(0, SIZE)
    border = (bh * (tl.cdiv(N, SEGMENT) + 1) + part + 1) * SIZE + cell
    behind = tl.sum(tl.load(states + border) * tl.load(gradients + border), 0)
    steps = tl.minimum(SEGMENT, N - part * SEGMENT)
    for step in range(steps):
        n = part * SEGMENT + steps - 1 - step
        t = n * C + i
        own = tl.zeros([C], tl.float32)
        for block in tl.static_range(BLOCKS):
            row = (block * tl.num_programs(1) + bh) * N * C + t
            own += tl.load(query_rows + row) - tl.load(key_rows + row)
        later = i[None, :] >= i[:, None]
        if segment is not None:
            places = segment + bh // H * N * C + t
            document = tl.load(places)
            open_at_end = tl.load(segment + bh // H * N * C + n * C + C - 1)
            begins = document != tl.load(places - 1, mask=i > 0, other=0)
            later = later & (document[None, :] == document[:, None])
            g = tl.sum(tl.where(later, own[None, :], 0.0), 1)
            g += tl.where(document == open_at_end, behind, 0.0)
            g = tl.where(begins, 0.0, g)
            behind = tl.where(open_at_end == 0, behind, 0.0)
            behind += tl.sum(tl.where(document == 0, own, 0.0), 0)
        else:
            g = tl.sum(tl.where(later, own[None, :], 0.0), 1) + behind
            behind += tl.sum(own, 0)
        tl.store(grad + bh * L + t, g, mask=t < L)
