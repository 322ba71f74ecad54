"""The event-driven product and the packing of its weights in C++ (`kernel.cpp`), through ctypes."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from spikeloom.ops.event import build
from spikeloom.ops.event.weights import InputMajor

SOURCE = Path(__file__).with_name("kernel.cpp")
_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}  # enum DType


class CWeights(ctypes.Structure):
    """`struct Weights` of matvec.hpp."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("d_in", ctypes.c_int64),
        ("d_out", ctypes.c_int64),
        ("stride", ctypes.c_int64),
        ("dtype", ctypes.c_int64),
    )


def c_weights(weights: InputMajor) -> CWeights:
    """Pointers into `weights`, which must outlive them."""
    data = weights.data
    return CWeights(
        data.data_ptr(),
        weights.scale.data_ptr(),
        weights.d_in,
        weights.d_out,
        data.stride(0),
        _CODES[data.dtype],
    )


def available() -> bool:
    """Whether the C++ product is there (compiling it if need be)."""
    return build.load(SOURCE) is not None


def event_matvec(payload: Tensor, weights: InputMajor) -> Tensor:
    """Same arguments and result as `naive.event_matvec`."""
    library = build.load(SOURCE)
    assert library is not None, "ask available() first"
    payload = payload.float().contiguous()
    y = torch.empty(weights.d_out)
    library.spikeloom_event_matvec(
        ctypes.byref(c_weights(weights)),
        ctypes.c_void_p(payload.data_ptr()),
        ctypes.c_void_p(y.data_ptr()),
    )
    return y


def fill(data: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Same arguments and result as `packing._fill`."""
    library = build.load(SOURCE)
    assert library is not None, "ask available() first"
    weight = weight.to("cpu", torch.float32).contiguous()
    quanta = torch.ones_like(scale)
    library.spikeloom_pack(
        ctypes.byref(c_weights(InputMajor(data, scale))),
        ctypes.c_void_p(weight.data_ptr()),
        ctypes.c_void_p(quanta.data_ptr()),
    )
    return scale * quanta
