"""Weights as the event-driven product wants them: input-major, one scale per input channel.

A channel that fires adds one row `W[i, :]` to all outputs; a silent channel is never read. The row
scale multiplies the integer payload, so the neuron's step theta costs nothing, and weights of a
checkpoint are used as they are (float32), rounded (bfloat16), or quantised per row (int8).
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import torch
from torch import Tensor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
_ALIGNMENT = 64  # bytes: rows start on cache lines
_BLOCK = 32 << 20  # bytes


@dataclass(frozen=True)
class InputMajor:
    """A matrix of `d_in` rows and `d_out` columns.

    Attributes:
        data: `[d_in, d_out]` in float32, bfloat16 or int8; rows contiguous, maybe padded.
        scale: `[d_in]` float32: the weight of channel i is `scale[i] * data[i]`.
    """

    data: Tensor
    scale: Tensor

    @property
    def d_in(self) -> int:
        return self.data.shape[0]

    @property
    def d_out(self) -> int:
        return self.data.shape[1]

    @property
    def nbytes(self) -> int:
        return self.data.numel() * self.data.element_size()

    def to(self, device: str | torch.device) -> InputMajor:
        """A copy on a device."""
        return InputMajor(self.data.to(device), self.scale.to(device))

    def dequantised(self) -> Tensor:
        """`[d_out, d_in]` float32, scale included: what `torch.nn.functional.linear` takes."""
        return (self.data.float() * self.scale[:, None]).t()


class Arena:
    """Memory for many matrices in few, large pages.

    Rows are read in random order, so that with 4 KB pages most of them miss the address cache; one
    block of huge pages under all matrices made small bf16 products up to 1.4x faster.
    """

    def __init__(self) -> None:
        self._block: Tensor = torch.empty(0, dtype=torch.uint8)
        self._used = 0

    def take(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """A zeroed `[rows, columns]` tensor whose rows start on cache lines."""
        size = dtype.itemsize
        stride = -(-columns * size // _ALIGNMENT) * _ALIGNMENT
        if self._used + rows * stride > self._block.numel():
            self._block, self._used = _huge_pages(max(rows * stride, _BLOCK)), 0
        raw = self._block[self._used : self._used + rows * stride]
        self._used += rows * stride
        return raw.view(dtype).view(rows, stride // size)[:, :columns]


def _huge_pages(nbytes: int) -> Tensor:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(nbytes, dtype=torch.uint8)
    # Private, because Linux gives huge pages to shared memory only where that is configured.
    block = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(block, dtype=torch.uint8)
