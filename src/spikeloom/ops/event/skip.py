"""The event-driven product on a GPU without a list: silent rows are skipped where they stand.

Every program looks at the payload of all its channels and asks only for the rows of those that
fired. Looking costs instructions, which few channels hardly need; a list (`gather`) costs a launch
of its own. So this form is for the small products of a decoder, and nothing stands between them: a
program adds up one part of the channels, and whoever reads the parts adds them, as torch.compile
does inside the norm or the neuron behind the product.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from spikeloom.ops.event.gather import Launch, _early, _wait
from spikeloom.ops.event.weights import InputMajor

PROGRAMS = 288  # that a product is cut into if it is large enough: two for each multiprocessor
MOST_PARTS = 7  # torch.compile adds up so few inside another program


def cut_of(d_in: int, d_out: int) -> Launch:
    """Few outputs make few programs: then channels are cut into parts, too.

    Measured on an H200 (`benchmarks/sweep_gather.py decoder`).
    """
    columns, rows = (32, 256) if d_in <= 1024 and d_out <= 4096 else (64, 128)
    blocks, groups = triton.cdiv(d_out, columns), triton.cdiv(d_in, rows)
    parts = min(max(1, PROGRAMS // blocks), MOST_PARTS, groups)
    return Launch(columns, triton.cdiv(groups, triton.cdiv(groups, parts)), rows, 4)


def skipping_matvec(payload: Tensor, weights: InputMajor) -> Tensor:
    """The product of `naive.event_matvec` on a GPU, in parts.

    Args:
        payload: `[d_in]`, of any number type.
        weights: of the product.

    Returns:
        `[parts, d_out]` float32, to be added up.

    Before a CUDA graph is captured, call it once outside: it is compiled.
    """
    return _skipping_matvec(payload.contiguous(), weights.data, weights.scale)


@torch.library.custom_op(
    "spikeloom::skipping_matvec",
    mutates_args=(),
    schema="(Tensor payload, Tensor data, Tensor scale) -> Tensor",
)
def _skipping_matvec(payload, data, scale):  # type: ignore[no-untyped-def]
    d_in, d_out = data.shape
    cut = cut_of(d_in, d_out)
    parts = payload.new_empty((cut.parts, d_out), dtype=torch.float32)
    with torch.cuda.device_of(payload):
        _skip[(triton.cdiv(d_out, cut.columns), cut.parts)](
            payload,
            data,
            scale,
            parts,
            d_in,
            d_out,
            data.stride(0),
            ROUNDS=triton.cdiv(d_in, cut.rows * cut.parts),
            ROWS=cut.rows,
            COLUMNS=cut.columns,
            num_warps=cut.warps,
            **_early(payload),
        )
    return parts


@_skipping_matvec.register_fake
def _skipping_matvec_fake(payload, data, scale):  # type: ignore[no-untyped-def]
    parts = cut_of(*data.shape).parts
    return payload.new_empty((parts, data.shape[1]), dtype=torch.float32)


@triton.jit
def _skip(
    payload, data, scale, parts, d_in, d_out, stride,
    ROUNDS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """`parts[p, j] = sum_i payload[i] * scale[i] * data[i, j]` over the p-th part of channels."""
    _wait(EARLY)
    block, part = tl.program_id(0), tl.program_id(1)
    j = block * COLUMNS + tl.arange(0, COLUMNS)
    there = j < d_out
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    for r in range(ROUNDS):
        i = (part * ROUNDS + r) * ROWS + tl.arange(0, ROWS)
        coefficient = tl.load(payload + i, mask=i < d_in, other=0).to(tl.float32)
        fires = coefficient != 0
        coefficient *= tl.load(scale + i, mask=fires, other=0)
        at = data + i.to(tl.int64)[:, None] * stride + j[None, :]
        rows = tl.load(at, mask=fires[:, None] & there[None, :], other=0)
        sums += rows.to(tl.float32) * coefficient[:, None]
    tl.store(parts + part.to(tl.int64) * d_out + j, tl.sum(sums, 0), mask=there)
