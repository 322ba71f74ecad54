"""A candidate for `sweep_gather.py`: the channels that fired are listed by a launch of their own.

Products of the same spikes could share one list, or the neuron could write it. Programs share out
the list, not the channels, so that all have as much to do.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from spikeloom.ops.event import gather


class Cut(NamedTuple):
    """Columns of a program, parts of the list, rows asked for at once, warps."""

    columns: int
    parts: int
    rows: int
    warps: int


CUTS = (
    Cut(64, 1, 128, 8),
    Cut(64, 1, 256, 8),
    Cut(64, 2, 128, 8),
    Cut(64, 4, 128, 4),
    Cut(128, 2, 64, 8),
    Cut(128, 4, 64, 4),
    Cut(256, 8, 32, 4),
)


def list_channels(payload):
    """`[d_in + 1]` int32: the channels that fired, and last their number."""
    listed = torch.empty(payload.numel() + 1, dtype=torch.int32, device=payload.device)
    channels = triton.next_power_of_2(payload.numel())
    _list_all[(1,)](payload, listed, payload.numel(), channels, num_warps=16, **_early(payload))
    return listed


def event_matvec(payload, listed, weights, cut):
    """As `gather.event_matvec`, with the list of `list_channels`."""
    d_in, d_out = weights.data.shape
    y = torch.empty(d_out, device=payload.device)
    parts = y if cut.parts == 1 else torch.empty(cut.parts, d_out, device=y.device)
    blocks = triton.cdiv(d_out, cut.columns)
    options = {"num_warps": cut.warps, **_early(payload)}
    _gather_listed[(blocks, cut.parts)](
        payload, listed, weights.data, weights.scale, parts, d_in, d_out, weights.data.stride(0),
        cut.parts, cut.rows, cut.columns, **options,
    )  # fmt: skip
    if cut.parts > 1:
        _add[(triton.cdiv(d_out, 256),)](parts, y, d_out, cut.parts, num_warps=4, **_early(payload))
    return y


def _early(payload):
    """Ask for the launch while the one before runs; the interpreter knows none of it."""
    return {"EARLY": True, "launch_pdl": True} if payload.is_cuda else {"EARLY": False}


@triton.jit
def _list_all(payload, listed, d_in, CHANNELS: tl.constexpr, EARLY: tl.constexpr):
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
    tl.store(listed + d_in, gather._list(payload, listed, 0, d_in, CHANNELS))


@triton.jit
def _gather_listed(
    payload, listed, data, scale, parts, d_in, d_out, stride,
    PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
    block, part = tl.program_id(0), tl.program_id(1)
    j = block * COLUMNS + tl.arange(0, COLUMNS)
    there = j < d_out
    count = tl.load(listed + d_in)
    size = tl.cdiv(count, PARTS)
    end = tl.minimum(part * size + size, count)
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(part * size, end, ROWS):
        slot = start + tl.arange(0, ROWS)
        here = slot < end
        i = tl.load(listed + slot, mask=here, other=0)
        at = data + i.to(tl.int64)[:, None] * stride + j[None, :]
        rows = tl.load(at, mask=here[:, None] & there[None, :], other=0)
        coefficient = tl.load(payload + i, mask=here, other=0).to(tl.float32)
        coefficient *= tl.load(scale + i, mask=here, other=0)
        sums += rows.to(tl.float32) * coefficient[:, None]
    tl.store(parts + part.to(tl.int64) * d_out + j, tl.sum(sums, 0), mask=there)


@triton.jit
def _add(parts, y, d_out, PARTS: tl.constexpr, EARLY: tl.constexpr):
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
    j = tl.program_id(0) * 256 + tl.arange(0, 256)
    total = tl.zeros([256], tl.float32)
    for part in tl.static_range(PARTS):
        total += tl.load(parts + part * d_out + j, mask=j < d_out, other=0)
    tl.store(y + j, total, mask=j < d_out)
