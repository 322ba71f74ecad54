"""The recurrent LIF in Triton: all steps in one launch, with the weights at hand throughout.

A program owns ROWS sequences and COLS neurons. It holds what these neurons hear, their rows of W,
for as long as it runs. Programs with the same sequences run side by side and hand spikes to each
other through memory, without locks: a word of WORD spikes that is not yet written is -1, and
whoever needs it reads it again until it is not. Every place is written once, so that nothing has to
be ordered. All programs of a launch must be able to run at the same time.

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

WORD = 16  # spikes of neighbours in one int32, the first in the lowest bit
_WORD = tl.constexpr(WORD)
_OTHER_NAN = tl.constexpr(0x7FC00000)


def waiting_for(words: int) -> str:
    """PTX that reads so many words until none of them is -1.

    Every thread waits for its own words only: no barrier is in the way until all of them are there.
    """
    loads = [f"ld.relaxed.gpu.global.b32 ${i}, [${words + i}];" for i in range(words)]
    tests = [f"setp.eq.or.s32 absent, ${i}, -1, absent;" for i in range(words)]
    again = ["again:", *loads, "setp.ne.s32 absent, $0, $0;", *tests, "@absent bra again;"]
    return "\n".join(["{ .reg .pred absent;", *again, "}"])


@triton.jit(do_not_specialize=["begin", "end", "group", "B"])
def recurrent_forward(
    x, weight, beta, v_first, starts, v_threshold, sent, charged, spikes,
    begin, end, group, B, D,
    ROWS: tl.constexpr, COLS: tl.constexpr, SPLIT: tl.constexpr, PART: tl.constexpr,
    AT_ONCE: tl.constexpr, WAITING: tl.constexpr, REGISTERS: tl.constexpr,
):  # fmt: skip
    """Steps `begin` to `end` - 1 of the sequences from group `group` on.

    `sent` `[S + 1, B, ceil(D / WORD)]` int32 holds the spikes one step later: first those before
    step 0. AT_ONCE words a thread asks for by the PTX WAITING; 0 without.
    """
    row, column, mine = _tile(group, B, D, ROWS, COLS)
    words = tl.cdiv(D, _WORD)
    places, known = _all_words(row, B, words, SPLIT, PART)
    # Neuron j hears row j of W; `weight` is [2, D, D], transposed.
    high, low = _weights(weight, D, COLS, SPLIT, PART)
    leak = tl.load(beta + column, mask=column < D, other=0.0)
    lane = row.to(tl.int64) * D + column
    step = tl.cast(B, tl.int64) * D
    word = tl.program_id(0) * (COLS // _WORD) + tl.arange(0, COLS // _WORD)[None, :]
    own = sent + row.to(tl.int64) * words + word
    if begin == 0:
        v = tl.load(v_first + lane, mask=mine, other=0.0)
    else:
        h = tl.load(charged + (tl.cast(begin, tl.int64) - 1) * step + lane, mask=mine, other=0.0)
        v = tl.where(h >= v_threshold, h - v_threshold, h)
    current = tl.load(x + tl.cast(begin, tl.int64) * step + lane, mask=mine, other=0.0)
    for t in range(begin, end):
        at = tl.cast(t, tl.int64) * step + lane
        following = tl.load(x + at + step, mask=mine & (t + 1 < end), other=0.0)
        heard = _heard(
            sent + tl.cast(t, tl.int64) * B * words + places, known, AT_ONCE, WAITING, REGISTERS
        )
        s = _unpacked(heard, SPLIT, ROWS, PART, high.dtype)
        recurrent = tl.sum(tl.dot(s, high) + tl.dot(s, low), 0)
        if starts is not None:
            start = tl.load(starts + t * B + row, mask=row < B, other=0) != 0
            v = tl.where(start, 0.0, v)
            recurrent = tl.where(start, 0.0, recurrent)
        v = leak * v + current.to(tl.float32) + recurrent
        fired = v >= v_threshold
        bits = tl.reshape((fired & mine).to(tl.int32), [ROWS, COLS // _WORD, _WORD])
        bits = tl.sum(bits << tl.arange(0, _WORD)[None, None, :], 2)
        after = own + (tl.cast(t, tl.int64) + 1) * B * words
        tl.store(after, bits, mask=(row < B) & (word < words))
        tl.store(charged + at, v, mask=mine)
        tl.store(spikes + at, fired.to(spikes.dtype.element_ty), mask=mine)
        v = tl.where(fired, v - v_threshold, v)
        current = following


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
def _all_words(row, B, words, SPLIT: tl.constexpr, PART: tl.constexpr):
    """Where all spikes of these sequences are in a step, and which of them are."""
    split = tl.arange(0, SPLIT)[:, None, None] * (PART // _WORD)
    word = split + tl.arange(0, PART // _WORD)[None, None, :]
    row = row[None, :, :]
    # What is not there is read from where something will be written, too.
    place = tl.minimum(row, B - 1).to(tl.int64) * words + tl.minimum(word, words - 1)
    return place, (row < B) & (word < words)


@triton.jit
def _heard(at, known, AT_ONCE: tl.constexpr, WAITING: tl.constexpr, REGISTERS: tl.constexpr):
    """Spikes as soon as all of them are there."""
    if AT_ONCE == 0:
        heard = tl.load(at, volatile=True)
        while tl.min(heard) < 0:
            heard = tl.load(at, volatile=True)
    else:
        heard = tl.inline_asm_elementwise(
            WAITING, REGISTERS, [at], dtype=tl.int32, is_pure=False, pack=AT_ONCE
        )
    return tl.where(known, heard, 0)


@triton.jit
def _unpacked(
    words, SPLIT: tl.constexpr, ROWS: tl.constexpr, PART: tl.constexpr, DTYPE: tl.constexpr
):
    """One number per spike, `[SPLIT, ROWS, PART]`; halving words keeps theirs in one thread."""
    spikes = tl.join(words & 0xFF, words >> 8)
    spikes = tl.join(spikes & 0xF, spikes >> 4)
    spikes = tl.join(spikes & 3, spikes >> 2)
    spikes = tl.join(spikes & 1, spikes >> 1)
    ones = tl.where(spikes != 0, tl.cast(1.0, DTYPE), tl.cast(0.0, DTYPE))
    return tl.reshape(ones, [SPLIT, ROWS, PART])


@triton.jit
def _handed_on(at, known):
    """Gradients, as bits, as soon as all of them are there."""
    bits = tl.load(at, mask=known, other=0, volatile=True)
    while tl.max((bits == -1).to(tl.int32)) > 0:
        bits = tl.load(at, mask=known, other=0, volatile=True)
    return bits
