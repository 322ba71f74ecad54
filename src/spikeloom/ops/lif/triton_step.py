"""One step of either neuron inside a Triton program: the equations of `naive` and their slopes.

All values are float32. A neuron is a tuple `cell` of

    kept      beta, a number or per channel
    unit      what a spike of 1 takes off the membrane: `v_threshold` (LIF) or theta (graded)
    inverse   1 / theta
    v_reset   None for the soft reset
    clip      None if the membrane is not clipped
    levels, fires_at        graded: the largest payload, and how far `v / theta` may go unfired

and of two constants of the program: KIND, a surrogate's name (LIF) or `graded`; and SIGNED.
"""

import triton
import triton.language as tl

# Adding and subtracting it leaves an integer, halves rounded to even (|u| < 2^22).
_ROUNDING = tl.constexpr(1.5 * 2**23)
_PI = tl.constexpr(3.141592653589793)


@triton.jit
def charge(v, x, start, cell):
    """The membrane with its input, not yet clipped; a `start` (or None) empties it before."""
    kept = cell[0] * v
    if start is not None:
        kept = tl.where(start, 0.0, kept)
    return kept + x.to(tl.float32)


@triton.jit
def bound(v, cell):
    clip = cell[4]
    if clip is not None:
        v = tl.minimum(tl.maximum(v, -clip), clip)
    return v


@triton.jit
def fire(v, cell, KIND: tl.constexpr, SIGNED: tl.constexpr):
    """Payload `s` of a membrane."""
    if KIND == "graded":
        u = v * cell[2]  # compared before it is rounded: that shortens the path from v to v
        s = tl.where(magnitude(u, SIGNED) > cell[6], rounded(u, cell[5]), 0.0)
    else:
        s = tl.where(v >= cell[1], 1.0, 0.0)
    return s


@triton.jit
def reset(v, s, cell):
    """The membrane after the spike."""
    v_reset = cell[3]
    if v_reset is None:
        after = v - cell[1] * s
    else:
        after = tl.where(s != 0.0, v_reset, v)
    return after


@triton.jit
def slope(v, cell, opens, closes, KIND: tl.constexpr, SIGNED: tl.constexpr):
    """Stand-in for `ds / dv`: a surrogate, or 1/theta where `opens < |v/theta| <= closes`."""
    if KIND == "graded":
        size = magnitude(v * cell[2], SIGNED)
        ds = tl.where((size > opens) & (size <= closes), cell[2], 0.0)
    else:
        ds = surrogate(v - cell[1], KIND)
    return ds


@triton.jit
def surrogate(u, KIND: tl.constexpr):
    """`spikeloom.ops.surrogate.SLOPES`."""
    if KIND == "atan":
        return 1.0 / (1.0 + (_PI * u) * (_PI * u))
    elif KIND == "sigmoid":
        g = tl.sigmoid(2.0 * u)
        return 2.0 * g * (1.0 - g)
    elif KIND == "fast_sigmoid":
        root = 1.0 / (1.0 + 2.0 * tl.abs(u))
        return root * root
    elif KIND == "piecewise_quadratic":
        return tl.maximum(1.0 - tl.abs(u), 0.0)
    else:
        tl.static_assert(KIND == "straight_through")
        return tl.where(tl.abs(u) <= 0.5, 1.0, 0.0)


@triton.jit
def rounded(u, limit):
    """Nearest integer within ± limit, halves to even; the limit is an integer."""
    return (tl.minimum(tl.maximum(u, -limit), limit) + _ROUNDING) - _ROUNDING


@triton.jit
def magnitude(u, SIGNED: tl.constexpr):
    """What is compared with levels: `|u|`, or `u` where payloads have no sign."""
    if SIGNED:
        u = tl.abs(u)
    return u
