"""Payloads as binary slots: `s` is a sum of slots that hold only -1, 0 and 1.

    unary     s = sum_{i < levels} z_i            z_i = sign(s) * 1[|s| > i]
    bitwise   s = sum_b 2^b z_b                   z_b = sign(s) * bit b of |s|

so that a weight product of `theta * s` is, exactly, accumulates of `W theta` alone (and, bitwise,
one shift per bit plane). Slots are a way to send a payload: they never touch the membrane.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

Form = Literal["unary", "bitwise"]


def slots(payloads: Tensor, levels: int, form: Form) -> Iterator[tuple[int, Tensor]]:
    """The slots of a payload tensor, one at a time (all of them would be `levels` times as big).

    Args:
        payloads: integers `s`, any shape and dtype, `|s| <= levels`.
        levels: the largest payload.
        form: `unary`, `levels` slots; or `bitwise`, one slot per bit of `levels`.

    Yields:
        slot weight (1, or 2^b) and slot, same shape and dtype as `payloads`, in {-1, 0, 1}.
    """
    sign = payloads.sign()
    size = payloads.abs().to(torch.int64)
    if form == "unary":
        for i in range(levels):
            yield 1, sign * (size > i).to(sign.dtype)
    else:
        for b in range(levels.bit_length()):
            yield 1 << b, sign * ((size >> b) & 1).to(sign.dtype)
