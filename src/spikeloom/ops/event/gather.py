"""The event-driven product on a GPU: list the channels that fired, then add up their rows.

One program makes the list. The programs of the product share out the list, not the channels, so
that all have as much to do, and each asks for many rows at once. Where outputs are few, the list is
cut into parts, whose sums a last launch adds up. Sums have one order, so results repeat exactly.
The number of rows never leaves the GPU, so a CUDA graph may hold it all. From Hopper on a launch
comes up while the one before still runs, and waits there for its end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from spikeloom.ops.event.weights import InputMajor

ADDED = tl.constexpr(256)  # outputs of a program that adds up parts


class Launch(NamedTuple):
    """How a product is cut up.

    Attributes:
        columns: of a program.
        parts: of the list.
        rows: that a program asks for at once.
        warps: of a program.
    """

    columns: int
    parts: int
    rows: int
    warps: int


def launch_of(d_in: int, d_out: int) -> Launch:
    """Measured on an H100 (`benchmarks/sweep_gather.py`): few outputs make too few programs."""
    return Launch(64, 1, 256, 8) if d_out >= 2 * d_in else Launch(64, 4, 128, 4)


def fired_channels(payload: Tensor) -> Tensor:
    """`[d_in + 1]` int32: the channels whose payload `[d_in]` is not 0, and last their number.

    The places between are not written.
    """
    return _fired_channels(payload.contiguous())


def event_matvec(payload: Tensor, weights: InputMajor, fired: Tensor | None = None) -> Tensor:
    """Same result as `naive.event_matvec`, on a GPU.

    Args:
        payload: `[d_in]`, of any number type.
        weights: of the product.
        fired: what `fired_channels` makes of this payload; without it, it is made here.

    Before a CUDA graph is captured, call it once outside: it is compiled.
    """
    payload = payload.contiguous()
    fired = _fired_channels(payload) if fired is None else fired
    return _event_matvec(payload, fired, weights.data, weights.scale)


@torch.library.custom_op(
    "spikeloom::fired_channels", mutates_args=(), schema="(Tensor payload) -> Tensor"
)
def _fired_channels(payload):  # type: ignore[no-untyped-def]
    fired, d_in = _fired_channels_fake(payload), payload.numel()
    channels = max(triton.next_power_of_2(d_in), 128)
    with torch.cuda.device_of(payload):
        _list[(1,)](payload, fired, d_in, channels, num_warps=16, **_early(payload))
    return fired


@_fired_channels.register_fake
def _fired_channels_fake(payload):  # type: ignore[no-untyped-def]
    return payload.new_empty(payload.numel() + 1, dtype=torch.int32)


@torch.library.custom_op(
    "spikeloom::event_matvec",
    mutates_args=(),
    schema="(Tensor payload, Tensor fired, Tensor data, Tensor scale) -> Tensor",
)
def _event_matvec(payload, fired, data, scale):  # type: ignore[no-untyped-def]
    d_in, d_out = data.shape
    launch, early = launch_of(d_in, d_out), _early(payload)
    y = _event_matvec_fake(payload, fired, data, scale)
    parts = y if launch.parts == 1 else y.new_empty(launch.parts, d_out)
    with torch.cuda.device_of(y):
        _gather[(triton.cdiv(d_out, launch.columns), launch.parts)](
            payload,
            fired,
            data,
            scale,
            parts,
            d_in,
            d_out,
            data.stride(0),
            PARTS=launch.parts,
            ROWS=launch.rows,
            COLUMNS=launch.columns,
            num_warps=launch.warps,
            **early,
        )
        if launch.parts > 1:
            blocks = triton.cdiv(d_out, ADDED.value)
            _add[(blocks,)](parts, y, d_out, launch.parts, num_warps=4, **early)
    return y


@_event_matvec.register_fake
def _event_matvec_fake(payload, fired, data, scale):  # type: ignore[no-untyped-def]
    return payload.new_empty(data.shape[1], dtype=torch.float32)


def _early(payload: Tensor) -> dict[str, Any]:
    """Options of a launch that comes up while the one before runs, where the GPU can do that."""
    able = payload.is_cuda and torch.cuda.get_device_capability(payload.device) >= (9, 0)
    return {"EARLY": True, "launch_pdl": True} if able else {"EARLY": False}


@triton.jit
def _wait(EARLY: tl.constexpr):
    """Nothing is read or written before the launch before has ended."""
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit
def _list(payload, fired, d_in, CHANNELS: tl.constexpr, EARLY: tl.constexpr):
    """A running count gives each channel that fired its place."""
    TOGETHER: tl.constexpr = 4  # what a thread loads at once, it counts alone
    _wait(EARLY)
    group = tl.arange(0, CHANNELS // TOGETHER)[:, None] * TOGETHER
    channel = group + tl.arange(0, TOGETHER)[None, :]
    fires = tl.load(payload + channel, mask=channel < d_in, other=0) != 0
    ones = fires.to(tl.int32)
    sizes = tl.sum(ones, 1)
    before = tl.cumsum(sizes, 0) - sizes
    place = before[:, None] + tl.cumsum(ones, 1) - 1
    tl.store(fired + place, channel, mask=fires)
    tl.store(fired + d_in, tl.sum(sizes, 0))


@triton.jit
def _gather(
    payload, fired, data, scale, parts, d_in, d_out, stride,
    PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """`parts[p, j] = sum_i payload[i] * scale[i] * data[i, j]` over the p-th part of the list."""
    _wait(EARLY)
    block, part = tl.program_id(0), tl.program_id(1)
    j = block * COLUMNS + tl.arange(0, COLUMNS)
    there = j < d_out
    count = tl.load(fired + d_in)
    size = tl.cdiv(count, PARTS)
    end = tl.minimum(part * size + size, count)
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(part * size, end, ROWS):
        slot = start + tl.arange(0, ROWS)
        here = slot < end
        i = tl.load(fired + slot, mask=here, other=0)
        at = data + i.to(tl.int64)[:, None] * stride + j[None, :]
        rows = tl.load(at, mask=here[:, None] & there[None, :], other=0)
        coefficient = tl.load(payload + i, mask=here, other=0).to(tl.float32)
        coefficient *= tl.load(scale + i, mask=here, other=0)
        sums += rows.to(tl.float32) * coefficient[:, None]
    tl.store(parts + part.to(tl.int64) * d_out + j, tl.sum(sums, 0), mask=there)


@triton.jit
def _add(parts, y, d_out, PARTS: tl.constexpr, EARLY: tl.constexpr):
    """`y[j] = sum_p parts[p, j]`."""
    _wait(EARLY)
    j = tl.program_id(0) * ADDED + tl.arange(0, ADDED)
    total = tl.zeros([ADDED], tl.float32)
    for part in tl.static_range(PARTS):
        total += tl.load(parts + part * d_out + j, mask=j < d_out, other=0)
    tl.store(y + j, total, mask=j < d_out)
