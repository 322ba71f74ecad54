"""The event-driven product on a GPU: list the channels that fired, then add up their rows.

Each slice of channels has a list of its own, so that none waits for another to be counted. The
programs of the product share out what fired, not the channels, so that all have as much to do, and
each asks for many rows at once. Where outputs are few, the lists are cut into parts, whose sums a
last launch adds up. Sums have one order, so results repeat exactly.
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

SLICE = 2048  # channels of a list
ADDED = tl.constexpr(256)  # outputs of a program that adds up parts


class Launch(NamedTuple):
    """How a product is cut up.

    Attributes:
        columns: of a program.
        parts: of what fired (in `skip`: of all channels).
        rows: that a program asks for at once.
        warps: of a program.
    """

    columns: int
    parts: int
    rows: int
    warps: int


def launch_of(d_in: int, d_out: int) -> Launch:
    """Measured on an H100 and an H200 (`benchmarks/sweep_gather.py`).

    Few outputs make too few programs: then the list is cut into parts, too. Where all parts
    together are no more than the multiprocessors, each takes twice as many rows at once.
    """
    if d_out >= 2 * d_in:
        return Launch(64, 1, 256, 8)
    return Launch(64, 4, 256, 8) if d_in >= 8192 and d_out <= 2048 else Launch(64, 4, 128, 4)


def fired_channels(payload: Tensor) -> Tensor:
    """`[slices, SLICE + 1]` int32: the channels whose payload `[d_in]` is not 0, slice by slice.

    The last place of a row is their number; places between are not written.
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


def event_matvec_in_parts(payload: Tensor, weights: InputMajor) -> Tensor:
    """The same, `[parts, d_out]` float32: whoever reads the parts adds them up."""
    payload = payload.contiguous()
    return _event_matvec_in_parts(payload, _fired_channels(payload), weights.data, weights.scale)


@torch.library.custom_op(
    "spikeloom::fired_channels", mutates_args=(), schema="(Tensor payload) -> Tensor"
)
def _fired_channels(payload):  # type: ignore[no-untyped-def]
    fired = _fired_channels_fake(payload)
    warps = min(SLICE // 128, 16)
    with torch.cuda.device_of(payload):
        _list[(fired.shape[0],)](
            payload, fired, payload.numel(), SLICE, num_warps=warps, **_early(payload)
        )
    return fired


@_fired_channels.register_fake
def _fired_channels_fake(payload):  # type: ignore[no-untyped-def]
    slices = -(-payload.shape[0] // SLICE)
    return payload.new_empty((slices, SLICE + 1), dtype=torch.int32)


@torch.library.custom_op(
    "spikeloom::event_matvec",
    mutates_args=(),
    schema="(Tensor payload, Tensor fired, Tensor data, Tensor scale) -> Tensor",
)
def _event_matvec(payload, fired, data, scale):  # type: ignore[no-untyped-def]
    y = _event_matvec_fake(payload, fired, data, scale)
    if launch_of(*data.shape).parts == 1:
        _ask(payload, fired, data, scale, y)
    else:
        parts = _in_parts_fake(payload, fired, data, scale)
        _ask(payload, fired, data, scale, parts)
        add_up(parts, y)
    return y


@_event_matvec.register_fake
def _event_matvec_fake(payload, fired, data, scale):  # type: ignore[no-untyped-def]
    return payload.new_empty(data.shape[1], dtype=torch.float32)


@torch.library.custom_op(
    "spikeloom::event_matvec_in_parts",
    mutates_args=(),
    schema="(Tensor payload, Tensor fired, Tensor data, Tensor scale) -> Tensor",
)
def _event_matvec_in_parts(payload, fired, data, scale):  # type: ignore[no-untyped-def]
    parts = _in_parts_fake(payload, fired, data, scale)
    _ask(payload, fired, data, scale, parts)
    return parts


@_event_matvec_in_parts.register_fake
def _in_parts_fake(payload, fired, data, scale):  # type: ignore[no-untyped-def]
    shape = launch_of(*data.shape).parts, data.shape[1]
    return payload.new_empty(shape, dtype=torch.float32)


def _ask(payload: Tensor, fired: Tensor, data: Tensor, scale: Tensor, parts: Tensor) -> None:
    launch, d_out = launch_of(*data.shape), data.shape[1]
    with torch.cuda.device_of(parts):
        _gather[(triton.cdiv(d_out, launch.columns), launch.parts)](
            payload,
            fired,
            data,
            scale,
            parts,
            d_out,
            data.stride(0),
            SLICE=fired.shape[1] - 1,
            SLICES=fired.shape[0],
            PARTS=launch.parts,
            ROWS=launch.rows,
            COLUMNS=launch.columns,
            num_warps=launch.warps,
            **_early(payload),
        )


def add_up(parts: Tensor, y: Tensor) -> None:
    """Parts `[parts, d_out]` into `y` `[d_out]`, in a launch of its own."""
    blocks = triton.cdiv(y.numel(), ADDED.value)
    with torch.cuda.device_of(y):
        _add[(blocks,)](parts, y, y.numel(), parts.shape[0], num_warps=4, **_early(parts))


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
def _list(payload, fired, d_in, SLICE: tl.constexpr, EARLY: tl.constexpr):
    """A running count gives each channel that fired its place in the list of its slice."""
    TOGETHER: tl.constexpr = 4  # what a thread loads at once, it counts alone
    _wait(EARLY)
    fired += tl.program_id(0) * (SLICE + 1)
    group = tl.program_id(0) * SLICE + tl.arange(0, SLICE // TOGETHER)[:, None] * TOGETHER
    channel = group + tl.arange(0, TOGETHER)[None, :]
    fires = tl.load(payload + channel, mask=channel < d_in, other=0) != 0
    ones = fires.to(tl.int32)
    sizes = tl.sum(ones, 1)
    before = tl.cumsum(sizes, 0) - sizes
    place = before[:, None] + tl.cumsum(ones, 1) - 1
    tl.store(fired + place, channel, mask=fires)
    tl.store(fired + SLICE, tl.sum(sizes, 0))


@triton.jit
def _gather(
    payload, fired, data, scale, parts, d_out, stride,
    SLICE: tl.constexpr, SLICES: tl.constexpr, PARTS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """`parts[p, j] = sum_i payload[i] * scale[i] * data[i, j]` over the p-th part of what fired."""
    _wait(EARLY)
    block, part = tl.program_id(0), tl.program_id(1)
    j = block * COLUMNS + tl.arange(0, COLUMNS)
    there = j < d_out
    count = 0
    for s in tl.static_range(SLICES):
        count += tl.load(fired + s * (SLICE + 1) + SLICE)
    size = tl.cdiv(count, PARTS)
    end = tl.minimum(part * size + size, count)
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(part * size, end, ROWS):
        slot = start + tl.arange(0, ROWS)
        here = slot < end
        i = tl.load(fired + _place(slot, fired, SLICE, SLICES), mask=here, other=0)
        at = data + i.to(tl.int64)[:, None] * stride + j[None, :]
        rows = tl.load(at, mask=here[:, None] & there[None, :], other=0)
        coefficient = tl.load(payload + i, mask=here, other=0).to(tl.float32)
        coefficient *= tl.load(scale + i, mask=here, other=0)
        sums += rows.to(tl.float32) * coefficient[:, None]
    tl.store(parts + part.to(tl.int64) * d_out + j, tl.sum(sums, 0), mask=there)


@triton.jit
def _place(slot, fired, SLICE: tl.constexpr, SLICES: tl.constexpr):
    """Where the channels stand that have these numbers among all that fired."""
    place, end = slot, 0
    for s in tl.static_range(SLICES - 1):
        length = tl.load(fired + s * (SLICE + 1) + SLICE)
        end += length
        place += tl.where(slot >= end, SLICE + 1 - length, 0)
    return place


@triton.jit
def _add(parts, y, d_out, PARTS: tl.constexpr, EARLY: tl.constexpr):
    """`y[j] = sum_p parts[p, j]`."""
    _wait(EARLY)
    j = tl.program_id(0) * ADDED + tl.arange(0, ADDED)
    total = tl.zeros([ADDED], tl.float32)
    for part in tl.static_range(PARTS):
        total += tl.load(parts + part * d_out + j, mask=j < d_out, other=0)
    tl.store(y + j, total, mask=j < d_out)
