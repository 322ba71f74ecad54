"""The event-driven product on a GPU: one launch, and nothing that waits for a count.

The grid is blocks of outputs times slices of channels, so many programs that their loads fill the
memory bus. A program lists the channels of its slice that fired (a running count gives each its
place, a comparison turns places into a list), adds up its columns of their rows alone, and leaves
the sum behind. Whichever program of a block of outputs comes last adds these up, slice by slice:
sums have one order, so results repeat exactly. The number of rows never leaves the GPU, so a CUDA
graph may hold the product.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from spikeloom.ops.event.weights import InputMajor

SUMMED = tl.constexpr(16)  # slices added up at once
TICKETS = 1 << 20  # counters; a product takes one per block of outputs


class Launch(NamedTuple):
    """How a product is cut up.

    Attributes:
        columns, channels: of a program.
        rows: that it asks for at once.
        warps: of a program.
        stages: how many such groups of rows are under way at once (1: one).
        early: come up while the launch before still runs, and wait for it there (Hopper and later).
        listed: the list of channels that fired passes through memory, not through comparisons.
    """

    columns: int
    channels: int
    rows: int
    warps: int
    stages: int = 1
    early: bool = False
    listed: bool = False


def _listed(columns: int, channels: int, rows: int, warps: int, stages: int = 1) -> Launch:
    return Launch(columns, channels, rows, warps, stages, early=True, listed=True)


# What `benchmarks/sweep_gather.py` compares.
LAUNCHES = (
    Launch(128, 256, 32, 4),
    Launch(256, 256, 32, 4),
    Launch(256, 256, 32, 4, early=True),
    Launch(512, 256, 16, 4, early=True),
    Launch(512, 256, 8, 4, stages=3, early=True),
    # Narrow programs with long lists: all rows are asked for at once, and few sums remain.
    _listed(64, 2048, 128, 8),
    _listed(64, 2048, 256, 8),
    _listed(64, 2048, 128, 16),
    _listed(64, 2048, 64, 8, 3),
    _listed(128, 2048, 64, 8),
    _listed(128, 4096, 64, 8),
    _listed(128, 4096, 128, 16),
    _listed(128, 1024, 128, 8),
    _listed(64, 4096, 128, 8),
    _listed(64, 4096, 256, 8),
    _listed(64, 4096, 64, 8, 3),
    _listed(32, 4096, 256, 8),
    _listed(32, 8192, 256, 8),
    _listed(64, 4096, 64, 8),
    _listed(64, 1024, 64, 4),
    _listed(64, 1024, 128, 4),
    _listed(128, 512, 64, 4),
    _listed(256, 512, 32, 8),
)


def event_matvec(payload: Tensor, weights: InputMajor) -> Tensor:
    """Same arguments and result as `naive.event_matvec`, on a GPU.

    Before a CUDA graph is captured, call it once outside: it is compiled, and counts arrivals in
    memory that no graph may own.
    """
    return _event_matvec(payload.contiguous(), weights.data, weights.scale)


@torch.library.custom_op(
    "spikeloom::event_matvec",
    mutates_args=(),
    schema="(Tensor payload, Tensor data, Tensor scale) -> Tensor",
)
def _event_matvec(payload, data, scale):  # type: ignore[no-untyped-def]
    d_in, d_out = data.shape
    launch = launch_of(d_in, d_out)
    blocks, slices = triton.cdiv(d_out, launch.columns), triton.cdiv(d_in, launch.channels)
    early = (
        launch.early and data.is_cuda and torch.cuda.get_device_capability(data.device) >= (9, 0)
    )
    y = _event_matvec_fake(payload, data, scale)
    parts = y if slices == 1 else torch.empty(slices, d_out, device=y.device)
    channels = torch.empty(
        slices * launch.channels if launch.listed else 0, dtype=torch.int32, device=y.device
    )
    with torch.cuda.device_of(y):
        _gather[(blocks, slices)](
            payload,
            data,
            scale,
            channels if launch.listed else None,
            parts,
            _tickets(y.device, blocks),
            y,
            d_in,
            d_out,
            data.stride(0),
            slices,
            CHANNELS=launch.channels,
            ROWS=launch.rows,
            COLUMNS=launch.columns,
            STAGES=launch.stages,
            EARLY=early,
            num_warps=launch.warps,
            **({"launch_pdl": True} if early else {}),
        )
    return y


@_event_matvec.register_fake
def _event_matvec_fake(payload, data, scale):  # type: ignore[no-untyped-def]
    return payload.new_empty(data.shape[1], dtype=torch.float32)


def launch_of(d_in: int, d_out: int) -> Launch:
    """Measured on an H100 (`benchmarks/sweep_gather.py`): wide rows only where columns are many."""
    return Launch(256 if d_out >= 16384 else 128, 256, 32, 4)


_counters: dict[torch.device, Tensor] = {}
_taken = 0


def _tickets(device: torch.device, blocks: int) -> Tensor:
    """Zeros that count arrivals, and are zeros again after the product.

    They are taken in turns from a long ring, so that products on several streams do not share them.
    """
    global _taken
    if device not in _counters:
        _counters[device] = torch.zeros(TICKETS, dtype=torch.int32, device=device)
    blocks = triton.cdiv(blocks, 4) * 4  # so that every place is as well aligned as the first
    begin = _taken if _taken + blocks <= TICKETS else 0
    _taken = begin + blocks
    return _counters[device][begin:]


@triton.jit(do_not_specialize=["slices"])
def _gather(
    payload,
    data,
    scale,
    listed,
    parts,
    tickets,
    y,
    d_in,
    d_out,
    stride,
    slices,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
    EARLY: tl.constexpr,
):
    """`y[j] = sum_i payload[i] * scale[i] * data[i, j]`; `parts` is `[slices, d_out]`."""
    if EARLY:
        gdc_wait()  # nothing is read or written before the launch before has ended
        gdc_launch_dependents()
    block, part = tl.program_id(0), tl.program_id(1)
    j = block * COLUMNS + tl.arange(0, COLUMNS)
    there = j < d_out
    first = part * CHANNELS
    if listed is not None:
        count = _list(payload, listed, first, d_in, CHANNELS)
    else:
        channel = tl.arange(0, CHANNELS)
        spikes = tl.load(payload + first + channel, mask=first + channel < d_in, other=0)
        fires = (spikes != 0).to(tl.int32)
        place = tl.where(fires != 0, tl.cumsum(fires, 0) - 1, -1)
        count = tl.sum(fires, 0)

    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in tl.range(0, count, ROWS, num_stages=STAGES):
        slot = start + tl.arange(0, ROWS)
        here = slot < count
        if listed is not None:
            i = tl.load(listed + first + slot, mask=here, other=0)
        else:
            i = first + tl.sum(tl.where(place[None, :] == slot[:, None], channel[None, :], 0), 1)
        at = data + i.to(tl.int64)[:, None] * stride + j[None, :]
        rows = tl.load(at, mask=here[:, None] & there[None, :], other=0)
        coefficient = tl.load(payload + i, mask=here, other=0).to(tl.float32)
        coefficient *= tl.load(scale + i, mask=here, other=0)
        sums += rows.to(tl.float32) * coefficient[:, None]
    total = tl.sum(sums, 0)
    if slices == 1:
        tl.store(y + j, total, mask=there)
    else:
        tl.store(parts + part.to(tl.int64) * d_out + j, total, mask=there)
        tl.debug_barrier()  # all threads have written before one says so
        if tl.atomic_add(tickets + block, 1, sem="release") == slices - 1:
            tl.atomic_xchg(tickets + block, 0, sem="acquire")
            tl.debug_barrier()  # what the others wrote is there for all threads
            total = tl.zeros([COLUMNS], tl.float32)
            for begin in range(0, slices, SUMMED):
                s = begin + tl.arange(0, SUMMED)
                at = parts + s.to(tl.int64)[:, None] * d_out + j[None, :]
                valid = (s < slices)[:, None] & there[None, :]
                total += tl.sum(tl.load(at, mask=valid, other=0, cache_modifier=".cg"), 0)
            tl.store(y + j, total, mask=there)


@triton.jit
def _list(payload, listed, first, d_in, CHANNELS: tl.constexpr):
    """Write the channels of this slice that fired to `listed[first:]`; returns how many.

    Every block of outputs writes the same numbers, so that none has to wait for another.
    """
    TOGETHER: tl.constexpr = 4  # what a thread loads at once, it counts alone
    group = tl.arange(0, CHANNELS // TOGETHER)[:, None] * TOGETHER
    channel = first + group + tl.arange(0, TOGETHER)[None, :]
    fires = tl.load(payload + channel, mask=channel < d_in, other=0) != 0
    ones = fires.to(tl.int32)
    inside = tl.cumsum(ones, 1)
    sizes = tl.sum(ones, 1)
    ends = tl.cumsum(sizes, 0)
    place = (ends - sizes)[:, None] + inside - 1
    count = tl.sum(sizes, 0)
    tl.store(listed + first + place, channel, mask=fires)
    tl.debug_barrier()  # all have written before any reads
    return count
