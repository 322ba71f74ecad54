"""The event-driven product on a GPU: one launch, and nothing that waits for a count.

Every Triton program owns a block of outputs. It lists the channels that fired (a running count
gives each its place), then adds up its columns of their rows alone. That all programs write the
same list costs less than a second launch; sums have one order, so results repeat exactly; and the
number of rows never leaves the GPU, so a CUDA graph may hold the product.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from spikeloom.ops.event.weights import InputMajor

PROGRAMS = 128  # about one per multiprocessor: output blocks are as wide as that allows
NARROWEST, WIDEST = 16, 128
LISTED = 2048  # channels looked at together
VALUES = 16384  # weights in flight in a program


def event_matvec(payload: Tensor, weights: InputMajor) -> Tensor:
    """Same arguments and result as `naive.event_matvec`, on a GPU."""
    return _event_matvec(payload.contiguous(), weights.data, weights.scale)


@torch.library.custom_op(
    "spikeloom::event_matvec",
    mutates_args=(),
    schema="(Tensor payload, Tensor data, Tensor scale) -> Tensor",
)
def _event_matvec(payload, data, scale):  # type: ignore[no-untyped-def]
    d_in, d_out = data.shape
    columns = block_of(d_out)
    programs = triton.cdiv(d_out, columns)
    y = _event_matvec_fake(payload, data, scale)
    fired = torch.empty(programs, d_in, dtype=torch.int32, device=payload.device)
    _gather[(programs,)](
        payload,
        data,
        scale,
        fired,
        y,
        d_in,
        d_out,
        data.stride(0),
        LISTED=min(LISTED, triton.next_power_of_2(d_in)),
        ROWS=VALUES // columns,
        COLUMNS=columns,
        num_warps=8,
    )
    return y


@_event_matvec.register_fake
def _event_matvec_fake(payload, data, scale):  # type: ignore[no-untyped-def]
    return payload.new_empty(data.shape[1], dtype=torch.float32)


def block_of(d_out: int) -> int:
    """Columns of a program: a power of two that gives about `PROGRAMS` programs."""
    return min(max(triton.next_power_of_2(triton.cdiv(d_out, PROGRAMS)), NARROWEST), WIDEST)


@triton.jit
def _gather(
    payload,
    data,
    scale,
    fired,
    y,
    d_in,
    d_out,
    stride,
    LISTED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """`y[j] = sum_i payload[i] * scale[i] * data[i, j]`; `fired` is room for `[programs, d_in]`."""
    fired += tl.program_id(0).to(tl.int64) * d_in
    count = 0
    for start in range(0, d_in, LISTED):
        i = start + tl.arange(0, LISTED)
        fires = tl.load(payload + i, mask=i < d_in, other=0) != 0
        place = count + tl.cumsum(fires.to(tl.int32), 0) - 1
        tl.store(fired + place, i, mask=fires)
        count += tl.sum(fires.to(tl.int32), 0)
    tl.debug_barrier()  # the list is written by all threads before any reads it

    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS], tl.float32)
    for start in range(0, count, ROWS):
        place = start + tl.arange(0, ROWS)
        listed = place < count
        i = tl.load(fired + place, mask=listed, other=0)
        at = data + i.to(tl.int64)[:, None] * stride + j[None, :]
        rows = tl.load(at, mask=listed[:, None] & (j < d_out)[None, :], other=0)
        coefficient = tl.load(payload + i, mask=listed, other=0).to(tl.float32)
        coefficient *= tl.load(scale + i, mask=listed, other=0)
        total += tl.sum(rows.to(tl.float32) * coefficient[:, None], 0)
    tl.store(y + j, total, mask=j < d_out)
