"""Products that read only the weights of channels that fired, for decoding one token.

`naive` is the specification, `native` the C++ form, `fallback` what runs without a compiler,
`gather` the form on a GPU. `event_matvec` takes the best that is there.
"""

from __future__ import annotations

import functools
import importlib.util
import sys

from torch import Tensor

from spikeloom.ops.event import fallback, naive, native
from spikeloom.ops.event.packing import pack
from spikeloom.ops.event.weights import Arena, InputMajor

__all__ = ["Arena", "InputMajor", "event_matvec", "pack"]


def event_matvec(payload: Tensor, weights: InputMajor) -> Tensor:
    """The product of `naive.event_matvec`: in C++ or Triton where they are there, else in torch."""
    if weights.data.is_cuda:
        return _on_gpu(payload, weights)
    form = native if native.available() else fallback
    return form.event_matvec(payload, weights)


def _on_gpu(payload: Tensor, weights: InputMajor) -> Tensor:
    if not _triton():
        return naive.event_matvec(payload, weights)
    from spikeloom.ops.event import gather

    return gather.event_matvec(payload, weights)


@functools.cache
def _triton() -> bool:
    found = importlib.util.find_spec("triton") is not None
    if not found:
        print(
            "spikeloom: event-driven products run in torch, not in Triton (pip install triton)",
            file=sys.stderr,
        )
    return found
