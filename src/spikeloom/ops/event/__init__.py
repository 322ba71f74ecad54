"""Products that read only the weights of channels that fired, for decoding one token.

`naive` is the specification, `native` the C++ form, `fallback` what runs without a compiler,
`gather` and `skip` the forms on a GPU, for many and for few channels. `event_matvec` and
`matvec_in_parts` take the best that is there.
"""

from __future__ import annotations

import functools
import importlib.util
import sys

import torch
from torch import Tensor

from spikeloom.ops.event import fallback, naive, native
from spikeloom.ops.event.packing import pack
from spikeloom.ops.event.weights import Arena, InputMajor

__all__ = [
    "Arena",
    "InputMajor",
    "event_matvec",
    "fired_channels",
    "matvec_in_parts",
    "pack",
    "skips_silent_rows",
]


def fired_channels(payload: Tensor) -> Tensor | None:
    """The list that products of one payload can share on a GPU; None where they want none."""
    if not payload.is_cuda or not _triton():
        return None
    from spikeloom.ops.event import gather

    return gather.fired_channels(payload)


def event_matvec(payload: Tensor, weights: InputMajor, fired: Tensor | None = None) -> Tensor:
    """The product of `naive.event_matvec`: in C++ or Triton where they are there, else in torch.

    `fired` is `fired_channels(payload)`, where several products share it.
    """
    if weights.data.is_cuda:
        return _on_gpu(payload, weights, fired)
    form = native if native.available() else fallback
    return form.event_matvec(payload, weights)


def skips_silent_rows(device: torch.device) -> bool:
    """Whether `matvec_in_parts` is there."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


def matvec_in_parts(payload: Tensor, weights: InputMajor) -> Tensor:
    """The same product for few channels, `[parts, d_out]`: who reads it adds the parts up.

    One launch on a GPU, or two where a list of many channels is worth its own, which torch.compile
    and CUDA graphs take; ask `skips_silent_rows` first.
    """
    from spikeloom.ops.event import gather, skip

    if weights.d_in >= 2 * weights.d_out:
        return gather.event_matvec_in_parts(payload, weights)
    return skip.skipping_matvec(payload, weights)


def _on_gpu(payload: Tensor, weights: InputMajor, fired: Tensor | None) -> Tensor:
    if not _triton():
        return naive.event_matvec(payload, weights)
    from spikeloom.ops.event import gather

    return gather.event_matvec(payload, weights, fired)


@functools.cache
def _triton() -> bool:
    found = importlib.util.find_spec("triton") is not None
    if not found:
        print(
            "spikeloom: event-driven products run in torch, not in Triton (pip install triton)",
            file=sys.stderr,
        )
    return found
