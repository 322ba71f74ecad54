"""Products that read only the weights of channels that fired, for decoding one token on a CPU.

`naive` is the specification, `native` the C++ form, `fallback` what runs without a compiler.
`event_matvec` takes the best that is there.
"""

from __future__ import annotations

from torch import Tensor

from spikeloom.ops.event import fallback, native
from spikeloom.ops.event.weights import Arena, InputMajor, pack

__all__ = ["Arena", "InputMajor", "event_matvec", "pack"]


def event_matvec(payload: Tensor, weights: InputMajor) -> Tensor:
    """The product of `naive.event_matvec`, in C++ where it can be compiled, else in torch."""
    form = native if native.available() else fallback
    return form.event_matvec(payload, weights)
