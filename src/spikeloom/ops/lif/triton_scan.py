"""Both neurons scanned over steps in Triton: forward, and backward from the input alone.

A program owns a tile of lanes (ROWS x COLS: rows are tokens or sequences, columns channels), holds
their membranes in registers and walks through the steps CHUNK at a time. The input of the next
chunk is on its way while this one is computed, so that only arithmetic is on the sequential path.
Where CHUNK does not divide S the first chunk starts before step 0: there the input is 0, and an
empty membrane stays empty without any special case.

The forward pass leaves one membrane per chunk behind. The backward pass walks the chunks from the
last to the first and computes the membranes inside each anew: nothing per step is kept but the
input. On the step clock one chunk holds all steps (ONE_CHUNK), and nothing else is kept at all.

Tensors are `[S, G, R, D]` (`spikeloom.ops.lif.scan` folds them so) with strides of S, G and R given
and 1 along D; membranes are contiguous `[G, R, D]`. A pointer or number that is not there is None.
`numbers` is (beta, v_threshold, v_reset, clip, levels, fires_at); tensors theta and beta, if there,
stand in for the numbers. `cell` is explained in `triton_step`.
"""

import triton
import triton.language as tl

from spikeloom.ops.lif.triton_step import bound, charge, fire, reset, slope


@triton.jit(do_not_specialize=["S", "G"])  # one program for all lengths and batches
def scan_forward(
    x, x_strides, starts, starts_strides, v_first, theta, beta, numbers,
    spikes, spikes_strides, v_last, checkpoints,
    S, G, R, D,
    KIND: tl.constexpr, SIGNED: tl.constexpr, CHUNK: tl.constexpr, ONE_CHUNK: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Spikes, the last membrane and, where there are more chunks, one membrane after each."""
    row, column, exists = _tile(G * R, D, ROWS, COLS)
    lane = row.to(tl.int64) * D + column
    beta_now = _per_channel(beta, numbers[0], column, D)
    unit = _per_channel(theta, numbers[1], column, D)
    cell = (beta_now, unit, tl.div_rn(1.0, unit), numbers[2], numbers[3], numbers[4], numbers[5])
    STARTS: tl.constexpr = starts is not None
    x = _at(x, x_strides, row, column, R)
    spikes = _at(spikes, spikes_strides, row, column, R)
    if STARTS:  # often the same along D, with a stride of 0
        starts = _at(starts, starts_strides, row, column * starts_strides[3], R)
    first = None
    if v_first is not None:
        first = tl.load(v_first + lane, exists).to(tl.float32)
    v = tl.zeros((ROWS, COLS), tl.float32)
    chunks = tl.cdiv(S, CHUNK)
    begin = S - chunks * CHUNK
    xs = _load(x, x_strides, begin, exists, CHUNK, not ONE_CHUNK)
    fresh = _load(starts, starts_strides, begin, exists, CHUNK, not ONE_CHUNK)
    if ONE_CHUNK:
        v = _forward_chunk(
            v, first, xs, fresh, spikes, spikes_strides, 0, exists, cell,
            KIND, SIGNED, STARTS, CHUNK, False,
        )  # fmt: skip
    else:
        for c in range(chunks):
            t = begin + c * CHUNK
            ahead = tl.minimum(t + CHUNK, S - CHUNK)  # the last chunk is loaded again
            next_xs = _load(x, x_strides, ahead, exists, CHUNK, False)
            next_fresh = _load(starts, starts_strides, ahead, exists, CHUNK, False)
            v = _forward_chunk(
                v, first, xs, fresh, spikes, spikes_strides, t, exists, cell,
                KIND, SIGNED, STARTS, CHUNK, True,
            )  # fmt: skip
            if checkpoints is not None:
                at = checkpoints + tl.cast(c, tl.int64) * G * R * D + lane
                tl.store(at, v, exists & (c < chunks - 1))
            xs, fresh = next_xs, next_fresh
    if v_last is not None:
        tl.store(v_last + lane, v, exists)


@triton.jit
def _forward_chunk(
    v, first, xs, fresh, spikes, strides, t, exists, cell,
    KIND: tl.constexpr, SIGNED: tl.constexpr, STARTS: tl.constexpr,
    CHUNK: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """The membrane after CHUNK steps from step `t` on, their spikes written."""
    spikes += tl.cast(t, tl.int64) * strides[0]
    for i in tl.static_range(CHUNK):
        if first is not None:
            v = tl.where(t + i == 0, first, v)
        start = fresh[i] if STARTS else None
        h = bound(charge(v, xs[i], start, cell), cell)
        s = fire(h, cell, KIND, SIGNED)
        here = _here(exists, t, i, PADDED)
        tl.store(spikes, s.to(spikes.dtype.element_ty), here)
        spikes += strides[0]
        v = reset(h, s, cell)
    return v


@triton.jit(do_not_specialize=["S", "G"])
def scan_backward(
    x, x_strides, starts, starts_strides, v_first, theta, beta, numbers, checkpoints,
    grad, grad_strides, grad_last, grad_x, grad_x_strides, grad_first, grad_theta, grad_beta,
    opens, closes,
    S, G, R, D,
    KIND: tl.constexpr, SIGNED: tl.constexpr, CHUNK: tl.constexpr, ONE_CHUNK: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Gradients; those of theta and beta as one row `[D]` per tile of rows, to be added up."""
    row, column, exists = _tile(G * R, D, ROWS, COLS)
    lane = row.to(tl.int64) * D + column
    beta_now = _per_channel(beta, numbers[0], column, D)
    unit = _per_channel(theta, numbers[1], column, D)
    cell = (beta_now, unit, tl.div_rn(1.0, unit), numbers[2], numbers[3], numbers[4], numbers[5])
    STARTS: tl.constexpr = starts is not None
    x = _at(x, x_strides, row, column, R)
    grad = _at(grad, grad_strides, row, column, R)
    grad_x = _at(grad_x, grad_x_strides, row, column, R)
    if STARTS:
        starts = _at(starts, starts_strides, row, column * starts_strides[3], R)
    first = None
    if v_first is not None:
        first = tl.load(v_first + lane, exists).to(tl.float32)
    zeros = tl.zeros((ROWS, COLS), tl.float32)
    g = zeros
    if grad_last is not None:
        g = tl.load(grad_last + lane, exists).to(tl.float32)
    sums = (g, zeros, zeros, zeros)  # of the membrane, of the first one, of theta, of beta
    t = S - CHUNK
    xs = _load(x, x_strides, t, exists, CHUNK, False)
    gs = _load(grad, grad_strides, t, exists, CHUNK, False)
    fresh = _load(starts, starts_strides, t, exists, CHUNK, False)
    if ONE_CHUNK:
        sums = _backward_chunk(
            sums, zeros, first, xs, gs, fresh, grad_x, grad_x_strides, 0, exists, cell,
            opens, closes, KIND, SIGNED, STARTS, beta is not None, CHUNK, False,
        )  # fmt: skip
    else:
        size = tl.cast(G, tl.int64) * R * D
        c = tl.cdiv(S, CHUNK) - 1
        v = tl.load(checkpoints + (c - 1) * size + lane, exists & (c > 0), other=0.0)
        while c >= 0:  # ahead of chunk 0 all steps lie before step 0: nothing is loaded
            ahead = t - CHUNK
            before = checkpoints + tl.maximum(c - 2, 0) * size + lane
            next_v = tl.load(before, exists & (c > 1), other=0.0)
            next_xs = _load(x, x_strides, ahead, exists, CHUNK, True)
            next_gs = _load(grad, grad_strides, ahead, exists, CHUNK, True)
            next_fresh = _load(starts, starts_strides, ahead, exists, CHUNK, True)
            sums = _backward_chunk(
                sums, v, first, xs, gs, fresh, grad_x, grad_x_strides, t, exists, cell,
                opens, closes, KIND, SIGNED, STARTS, beta is not None, CHUNK, True,
            )  # fmt: skip
            v, xs, gs, fresh = next_v, next_xs, next_gs, next_fresh
            c -= 1
            t = ahead
    if grad_first is not None:
        tl.store(grad_first + lane, sums[1], exists)
    part = (tl.program_id(0) // tl.cdiv(D, COLS)).to(tl.int64) * D
    if grad_theta is not None:
        _store_sum(grad_theta + part, sums[2], column, exists, D)
    if grad_beta is not None:
        _store_sum(grad_beta + part, sums[3], column, exists, D)


@triton.jit
def _backward_chunk(
    sums, v, first, xs, gs, fresh, grad_x, strides, t, exists, cell, opens, closes,
    KIND: tl.constexpr, SIGNED: tl.constexpr, STARTS: tl.constexpr, BETA: tl.constexpr,
    CHUNK: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """The sums before the chunk, from those after it; `v` is the membrane before it."""
    g, by_first, by_theta, by_beta = sums
    unit, inverse, v_reset, clip = cell[1], cell[2], cell[3], cell[4]
    grad_x += (tl.cast(t, tl.int64) + (CHUNK - 1)) * strides[0]
    before = ()
    for i in tl.static_range(CHUNK):
        if first is not None:
            v = tl.where(t + i == 0, first, v)
        before = before + (v,)
        start = fresh[i] if STARTS else None
        h = bound(charge(v, xs[i], start, cell), cell)
        v = reset(h, fire(h, cell, KIND, SIGNED), cell)
    for i in tl.static_range(CHUNK - 1, -1, -1):
        start = fresh[i] if STARTS else None
        charged = charge(before[i], xs[i], start, cell)
        h = bound(charged, cell)
        s = fire(h, cell, KIND, SIGNED)
        ds = slope(h, cell, opens, closes, KIND, SIGNED)
        by_s = gs[i].to(tl.float32)
        if v_reset is None:  # v' = v - unit * s, so that s is also felt through the membrane
            by_v = g * (1.0 - unit * ds) + by_s * ds  # one product between one g and the next
            by_s -= unit * g
        else:
            by_v = tl.where(s != 0.0, 0.0, g) + by_s * ds
        if KIND == "graded":
            by_theta -= by_s * ds * (h * inverse)
            if v_reset is None:
                by_theta -= g * s
        if clip is not None:
            by_v = tl.where(tl.abs(charged) <= clip, by_v, 0.0)
        here = _here(exists, t, i, PADDED)
        tl.store(grad_x, by_v.to(grad_x.dtype.element_ty), here)
        grad_x -= strides[0]
        if STARTS:
            by_v = tl.where(start, 0.0, by_v)
        if BETA:
            by_beta += by_v * before[i]
        g = cell[0] * by_v
        if first is not None:
            by_first = tl.where(t + i == 0, g, by_first)
    return g, by_first, by_theta, by_beta


@triton.jit
def _tile(rows, D, ROWS: tl.constexpr, COLS: tl.constexpr):
    """This program's rows `[ROWS, 1]` and columns `[1, COLS]`, and which lanes there are."""
    blocks = tl.cdiv(D, COLS)
    row = (tl.program_id(0) // blocks) * ROWS + tl.arange(0, ROWS)[:, None]
    column = (tl.program_id(0) % blocks) * COLS + tl.arange(0, COLS)[None, :]
    return row, column, (row < rows) & (column < D)


@triton.jit
def _per_channel(pointer, number, column, D):
    """A parameter `[D]` as `[1, COLS]`, or the number where there is none."""
    if pointer is None:
        value = tl.cast(number, tl.float32)
    else:
        value = tl.load(pointer + column, mask=column < D, other=1.0).to(tl.float32)
    return value


@triton.jit
def _at(pointer, strides, row, column, R):
    """Where the lanes of step 0 are."""
    group = (row // R).to(tl.int64)
    return pointer + group * strides[1] + (row % R) * strides[2] + column


@triton.jit
def _here(exists, t, i: tl.constexpr, PADDED: tl.constexpr):
    """The lanes that have a step `t + i`: before step 0 none."""
    if PADDED:
        exists = exists & (t >= -i)
    return exists


@triton.jit
def _load(pointer, strides, t, exists, CHUNK: tl.constexpr, PADDED: tl.constexpr):
    """CHUNK steps from step `t` on, all asked for at once; empty where there is no tensor."""
    values = ()
    if pointer is not None:
        pointer += tl.cast(t, tl.int64) * strides[0]
        for i in tl.static_range(CHUNK):
            values = values + (tl.load(pointer, _here(exists, t, i, PADDED), other=0),)
            pointer += strides[0]
    return values


@triton.jit
def _store_sum(pointer, values, column, exists, D):
    """Sum over the rows of the tile, one number per channel."""
    total = tl.sum(tl.where(exists, values, 0.0), axis=0)[None, :]
    tl.store(pointer + column, total, column < D)
