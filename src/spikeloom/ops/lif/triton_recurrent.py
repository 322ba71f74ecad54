"""The recurrent LIF in Triton: all steps in one launch, with the weights at hand throughout.

A program owns ROWS sequences and COLS neurons. It holds what these neurons hear, their rows of W,
for as long as it runs. Programs with the same sequences run side by side and hand spikes to each
other through memory, without locks: a place that is not yet written holds a value that is no spike
(-1), and whoever needs it reads it again until it is. Every place is written once, so that nothing
has to be ordered. All programs of a launch must be able to run at the same time.

Spikes are exact in half precision; weights come as a sum of two halves. A product with both is as
good as one in float32. Sums over D are cut into SPLIT parts, one per warp.

The backward pass runs the same way from the last step to the first, with W transposed; what is
handed on is the gradient of each charged membrane, and the value that is none is a NaN of a bit
pattern (-1) that no arithmetic makes.

Tensors are contiguous `[S, B, D]`; `charged` is the membrane before its spike, in float32.
"""

import triton
import triton.language as tl

from spikeloom.ops.lif.triton_step import surrogate

_OTHER_NAN = tl.constexpr(0x7FC00000)


@triton.jit(do_not_specialize=["begin", "end", "group", "B"])
def recurrent_forward(
    x, weight, beta, v_first, starts, v_threshold, sent, charged, spikes,
    begin, end, group, B, D,
    ROWS: tl.constexpr, COLS: tl.constexpr, SPLIT: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Steps `begin` to `end` - 1 of the sequences from group `group` on.

    `sent` `[S + 1, B, D]` int8 holds the spikes one step later: first those before step 0.
    """
    row, column, mine = _tile(group, B, D, ROWS, COLS)
    places, known = _everyone(row, B, D, SPLIT, PART)
    # Neuron j hears row j of W; `weight` is [2, D, D], transposed.
    high, low = _weights(weight, D, COLS, SPLIT, PART)
    leak = tl.load(beta + column, mask=column < D, other=0.0)
    lane = row.to(tl.int64) * D + column
    step = tl.cast(B, tl.int64) * D
    if begin == 0:
        v = tl.load(v_first + lane, mask=mine, other=0.0)
    else:
        at = tl.cast(begin, tl.int64) * step + lane
        v = tl.load(charged + at - step, mask=mine, other=0.0)
        v -= v_threshold * tl.load(sent + at, mask=mine, other=0).to(tl.float32)
    for t in range(begin, end):
        at = tl.cast(t, tl.int64) * step
        current = tl.load(x + at + lane, mask=mine, other=0.0).to(tl.float32)
        heard = _heard(sent + at + places, known)
        s = heard.to(tl.float32).to(high.dtype)
        recurrent = tl.sum(tl.dot(s, high) + tl.dot(s, low), 0)
        if starts is not None:
            start = tl.load(starts + t * B + row, mask=row < B, other=0) != 0
            v = tl.where(start, 0.0, v)
            recurrent = tl.where(start, 0.0, recurrent)
        v = leak * v + current + recurrent
        fired = v >= v_threshold
        tl.store(sent + at + step + lane, fired.to(tl.int8), mask=mine)
        tl.store(charged + at + lane, v, mask=mine)
        tl.store(spikes + at + lane, fired.to(spikes.dtype.element_ty), mask=mine)
        v = tl.where(fired, v - v_threshold, v)


@triton.jit(do_not_specialize=["begin", "end", "group", "S", "B"])
def recurrent_backward(
    weight, beta, starts, v_threshold, charged, grad, grad_last, by_charged,
    begin, end, group, S, B, D,
    KIND: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, SPLIT: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Steps `end` - 1 down to `begin`. `by_charged` `[S, B, D]` holds float32 as int32."""
    row, column, mine = _tile(group, B, D, ROWS, COLS)
    places, known = _everyone(row, B, D, SPLIT, PART)
    high, low = _weights(weight, D, COLS, SPLIT, PART)  # [2, D, D], as it is
    leak = tl.load(beta + column, mask=column < D, other=0.0)
    lane = row.to(tl.int64) * D + column
    step = tl.cast(B, tl.int64) * D
    if end == S:
        by_v = tl.load(grad_last + lane, mask=mine, other=0.0)
    else:
        later = tl.load(by_charged + tl.cast(end, tl.int64) * step + lane, mask=mine, other=0)
        by_v = leak * later.to(tl.float32, bitcast=True)
    for back in range(end - begin):
        t = end - 1 - back
        at = tl.cast(t, tl.int64) * step
        h = tl.load(charged + at + lane, mask=mine, other=0.0)
        by_s = tl.load(grad + at + lane, mask=mine, other=0.0).to(tl.float32)
        if t + 1 < S:
            bits = _handed_on(by_charged + at + step + places, known)
            g = bits.to(tl.float32, bitcast=True)
            upper = g.to(high.dtype)
            lower = (g - upper.to(tl.float32)).to(high.dtype)
            felt = tl.sum(tl.dot(upper, high) + tl.dot(upper, low) + tl.dot(lower, high), 0)
            if starts is not None:
                start = tl.load(starts + (t + 1) * B + row, mask=row < B, other=0) != 0
                felt = tl.where(start, 0.0, felt)
                by_v = tl.where(start, 0.0, by_v)
            by_s += felt
        by_h = by_v + (by_s - v_threshold * by_v) * surrogate(h - v_threshold, KIND)
        bits = by_h.to(tl.int32, bitcast=True)
        tl.store(by_charged + at + lane, tl.where(bits == -1, _OTHER_NAN, bits), mask=mine)
        by_v = leak * by_h


@triton.jit
def _tile(group, B, D, ROWS: tl.constexpr, COLS: tl.constexpr):
    """This program's sequences `[ROWS, 1]` and neurons `[1, COLS]`, and which lanes there are."""
    row = (group + tl.program_id(1)) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(0) * COLS + tl.arange(0, COLS)[None, :]
    return row, column, (row < B) & (column < D)


@triton.jit
def _everyone(row, B, D, SPLIT: tl.constexpr, PART: tl.constexpr):
    """Where all neurons of these sequences are in a step, `[SPLIT, ROWS, PART]`, and which are."""
    split = tl.arange(0, SPLIT)[:, None, None] * PART + tl.arange(0, PART)[None, None, :]
    row = row[None, :, :]
    return row.to(tl.int64) * D + split, (row < B) & (split < D)


@triton.jit
def _weights(weight, D, COLS: tl.constexpr, SPLIT: tl.constexpr, PART: tl.constexpr):
    """Both halves of `[D, D]`, its columns of this program, `[SPLIT, PART, COLS]`."""
    i = tl.arange(0, SPLIT)[:, None, None] * PART + tl.arange(0, PART)[None, :, None]
    j = tl.program_id(0) * COLS + tl.arange(0, COLS)[None, None, :]
    at = weight + i * D + j
    exists = (i < D) & (j < D)
    return tl.load(at, mask=exists, other=0.0), tl.load(at + D * D, mask=exists, other=0.0)


@triton.jit
def _heard(at, known):
    """Spikes as soon as all of them are there."""
    heard = tl.load(at, mask=known, other=0, volatile=True)
    while tl.min(heard.to(tl.int32)) < 0:
        heard = tl.load(at, mask=known, other=0, volatile=True)
    return heard


@triton.jit
def _handed_on(at, known):
    """Gradients, as bits, as soon as all of them are there."""
    bits = tl.load(at, mask=known, other=0, volatile=True)
    while tl.max((bits == -1).to(tl.int32)) > 0:
        bits = tl.load(at, mask=known, other=0, volatile=True)
    return bits
